// Package quickstart makes pawl start quickly. It keeps kubectl's packages from
// loading their translations (20 ms), and the garbage collector from looking at
// what they allocate at the start and keep for ever (2 ms). It works by being
// initialised before them: of packages whose imports are ready, Go initialises
// the first by path, and this one's sorts before k8s.io/kubectl/pkg/cmd. It
// refuses to know anything of commands.
package quickstart

import (
	"runtime"
	"runtime/debug"

	"k8s.io/kubectl/pkg/util/i18n"
)

// startPercent has the collector run first at a heap of 32 MiB, which most
// commands never have.
const startPercent = 800

// early says whether the translations were still unread.
var early bool

func init() {
	early = i18n.SetLoadTranslationsFunc(func() error { return nil }) == nil
	usual := debug.SetGCPercent(startPercent)
	if usual != 100 {
		debug.SetGCPercent(usual) // GOGC says what is wanted
		return
	}
	// The first collection finds this object unused, and it is as usual from then on.
	runtime.AddCleanup(new([16]byte), func(percent int) { debug.SetGCPercent(percent) }, usual)
}

// Untranslated says whether this package came before the first text was translated.
func Untranslated() bool { return early }
