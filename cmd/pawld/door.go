package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/spf13/pflag"

	"github.com/pawl-project/pawl/reconciler/access"
)

// A door is what other commands of an instance need to know of its front door.
// The daemon leaves it in the data directory.
type door struct {
	Remote string `json:"remote,omitempty"` // its address for other machines; "" when they cannot reach it
	CAFile string `json:"caFile,omitempty"` // what vouches for it; "" when every machine trusts it
}

func (c *upConfig) leaveDoor(a *access.Access) error {
	text, err := json.Marshal(door{Remote: a.RemoteURL(), CAFile: a.CAFile()})
	if err != nil {
		return err
	}
	return replaceFile(c.doorFile(), append(text, '\n'))
}

// readDoor is what the daemon left when it was started last.
func (i *instance) readDoor() (door, error) {
	text, err := os.ReadFile(i.doorFile())
	if errors.Is(err, fs.ErrNotExist) {
		return door{}, fmt.Errorf("%s was not started yet: start it with pawld up", i.data)
	}
	if err != nil {
		return door{}, err
	}
	var d door
	if err := json.Unmarshal(text, &d); err != nil {
		return door{}, fmt.Errorf("%s: %w", i.doorFile(), err)
	}
	return d, nil
}

// dataFlags are those of a command that needs an instance's data directory alone.
func (i *instance) dataFlags(f *pflag.FlagSet) {
	f.StringVar(&i.data, "data", defaultDataDir, "data directory of the instance")
	f.String("config", defaultConfigFile, "file of settings: flag names without dashes in front, as YAML")
}

// existing makes the data directory absolute and makes sure that it is an instance's.
func (i *instance) existing() error {
	if err := i.absolute(); err != nil {
		return err
	}
	if _, err := os.ReadFile(i.dataMark()); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("no instance is in %s: pawld up makes one, --data names another", i.data)
		}
		return err
	}
	return nil
}
