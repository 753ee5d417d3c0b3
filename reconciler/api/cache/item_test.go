package cache

import (
	"bytes"
	"encoding/json"
	"math"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/pawl-project/pawl/schema"
)

// What an item is on the wire is what its object writes of itself, also where
// the version makes a length longer than it was when the object was measured.
func TestItemsAreEncodedAsTheirObjects(t *testing.T) {
	for pad := range 20_000 {
		if pad > 300 && pad < 16_000 && pad%97 != 0 {
			continue
		}
		c := New(Options{})
		k := schema.ObjectKey{Kind: schema.ConfigMaps, Namespace: "default", Name: "a"}
		c.Put(k, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
			Namespace: k.Namespace, Name: k.Name, Annotations: map[string]string{"a": strings.Repeat("x", pad), "b": "<y>"},
		}}, math.MaxUint64-1)
		i, _ := c.Get(k)
		m := i.Object().(*corev1.ConfigMap)
		want, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(i.Proto(), want) {
			t.Fatalf("with %d bytes the message differs", pad)
		}
		if want, err = json.Marshal(m); err != nil || !bytes.Equal(i.JSON(), want) {
			t.Fatalf("with %d bytes the text differs: %v", pad, err)
		}
	}
}
