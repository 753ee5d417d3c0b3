// Package untranslated keeps kubectl's packages from loading their translations,
// which would cost every start of pawl 20 ms. It works by being initialised
// before them: Go initialises packages whose imports are ready in the order of
// their paths, and this one's sorts before k8s.io/kubectl/pkg/cmd. It refuses to
// do anything else.
package untranslated

import "k8s.io/kubectl/pkg/util/i18n"

// early says whether the translations were still unread.
var early bool

func init() {
	early = i18n.SetLoadTranslationsFunc(func() error { return nil }) == nil
}

// InTime says whether this package came before the first text was translated.
func InTime() bool { return early }
