package schema

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// UIDOf is the uid of a desired object, and of a ReplicaSet that the planner
// makes: always the same for one name, so that what runs is known again after
// the store was lost. An object that left the repository and came back has the
// uid it had.
func UIDOf(k ObjectKey) types.UID {
	return uid(string(k.Kind) + "/" + k.Namespace + "/" + k.Name)
}

// PodUID is the uid of a pod the planner makes at now. Pods of one name follow
// each other (a bare pod is replaced under its own name), so the time is in it.
func PodUID(k PodKey, now time.Time) types.UID {
	return uid("pod/" + k.Namespace + "/" + k.Name + "/" + strconv.FormatInt(now.UnixNano(), 10))
}

// uid shapes a hash as a UUID of version 8, the one RFC 9562 leaves to the maker.
func uid(text string) types.UID {
	b := sha256.Sum256([]byte(text))
	b[6] = b[6]&0x0f | 0x80
	b[8] = b[8]&0x3f | 0x80
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16]))
}
