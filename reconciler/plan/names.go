package plan

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// letters make names as Kubernetes' do: no vowels and nothing that looks like
// one, so that no word appears by chance.
const letters = "bcdfghjklmnpqrstvwxz2456789"

const (
	suffixLetters = 5
	hashLetters   = 10
	longestLabel  = 63
)

// spell writes n letters that follow from text.
func spell(text string, n int) string {
	sum := sha256.Sum256([]byte(text))
	v := binary.BigEndian.Uint64(sum[:])
	b := make([]byte, n)
	for i := range b {
		b[i] = letters[v%uint64(len(letters))]
		v /= uint64(len(letters))
	}
	return string(b)
}

// podName is the name of the index-th pod that its owner asks for at now, one
// that taken knows nothing of.
func podName(owner string, uid types.UID, now time.Time, index int, taken func(name string) bool) (base, name string) {
	base = owner + "-"
	if len(base) > longestLabel-suffixLetters {
		base = base[:longestLabel-suffixLetters]
	}
	seed := string(uid) + "/" + strconv.FormatInt(now.UnixNano(), 10) + "/" + strconv.Itoa(index) + "/"
	for try := 0; ; try++ {
		if name = base + spell(seed+strconv.Itoa(try), suffixLetters); !taken(name) {
			return base, name
		}
	}
}

// templateHash names a pod template: the value of the pod-template-hash label.
// The salt tells apart templates that would have one name.
func templateHash(t *corev1.PodTemplateSpec, salt int) string {
	text, err := json.Marshal(t)
	if err != nil {
		// Only a type without a JSON form fails, and this one has one.
		panic("plan: pod template: " + err.Error())
	}
	return spell(string(text)+strconv.Itoa(salt), hashLetters)
}

// stamp is a time as the store keeps it: Kubernetes' times have whole seconds.
func stamp(now time.Time) metav1.Time {
	return metav1.NewTime(now.UTC().Truncate(time.Second))
}

func podKey(p *corev1.Pod) schema.PodKey {
	return schema.PodKey{Namespace: p.Namespace, Name: p.Name}
}

func objectKey(k schema.PodKey) schema.ObjectKey {
	return schema.ObjectKey{Kind: schema.Pods, Namespace: k.Namespace, Name: k.Name}
}
