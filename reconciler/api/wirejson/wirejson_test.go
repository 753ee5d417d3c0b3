package wirejson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/pawl-project/pawl/schema"
)

// A filler fills values with what may stand there, and leaves gaps.
type filler struct {
	*rand.Rand
	gaps int // in hundred
}

var filledTexts = []string{"", "a", "web-0", `"quoted"`, "<&>", "back\\slash", "line\nbreak", "é", "\u2028", "\x7f", "\xff", "日本", "\x00"}

func (f filler) fill(v reflect.Value, depth int) {
	if f.IntN(100) < f.gaps || depth > 12 {
		return
	}
	switch x := v.Addr().Interface().(type) {
	case *metav1.Time:
		*x = metav1.Unix(f.Int64N(1<<33), 0)
		return
	case *metav1.MicroTime:
		*x = metav1.NewMicroTime(time.UnixMicro(f.Int64N(1 << 50)))
		return
	case *resource.Quantity:
		*x = resource.MustParse([]string{"0", "1", "250m", "64Mi", "1.5G", "123456789012345678901", "1e3", "-5"}[f.IntN(8)])
		return
	case *intstr.IntOrString:
		*x = []intstr.IntOrString{intstr.FromInt32(80), intstr.FromString("25%")}[f.IntN(2)]
		return
	case *runtime.RawExtension:
		x.Raw = []byte(`{"a": [1, "<"]}`)
		return
	case *metav1.FieldsV1:
		*x = *metav1.NewFieldsV1(`{"f:metadata":{}}`)
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString(filledTexts[f.IntN(len(filledTexts))])
	case reflect.Bool:
		v.SetBool(f.IntN(2) == 0)
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(int64(f.Int32()) - 1<<30)
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(f.IntN(256)))
	case reflect.Float64:
		v.SetFloat(f.Float64())
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		f.fill(v.Elem(), depth+1)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), f.IntN(3), 3))
		for i := range v.Len() {
			f.fill(v.Index(i), depth+1)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range f.IntN(4) {
			k, e := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			f.fill(k, depth+1)
			f.fill(e, depth+1)
			v.SetMapIndex(k, e)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				f.fill(v.Field(i), depth+1)
			}
		}
	}
}

// strange are types with what Kubernetes' objects have seldom or never.
type strange struct {
	corev1.LocalObjectReference `json:",inline"`
	Any                         any               `json:"any"`
	Floats                      []float64         `json:"floats,omitempty"`
	Maps                        map[string][]byte `json:"maps,omitempty"`
	Named                       map[corev1.ResourceName]string
	Text                        int               `json:"text,string"`
	Omitted                     string            `json:"-"`
	Array                       [2]int            `json:"array,omitempty"`
	Zero                        metav1.ObjectMeta `json:"zero,omitzero"`
	hidden                      int               //nolint:unused // not to be written
}

type twice struct {
	metav1.TypeMeta `json:",inline"`
	Kind            string `json:"kind"`
}

func TestSameAsEncodingJSON(t *testing.T) {
	types := []reflect.Type{
		reflect.TypeFor[strange](), reflect.TypeFor[twice](), reflect.TypeFor[corev1.PodTemplate](), reflect.TypeFor[corev1.PersistentVolume](),
		reflect.TypeFor[admissionv1.ValidatingWebhookConfiguration](), reflect.TypeFor[metav1.Status](), reflect.TypeFor[metav1.PartialObjectMetadata](),
	}
	for _, info := range schema.Kinds() {
		types = append(types, reflect.TypeOf(info.New()).Elem())
	}
	for _, of := range types {
		t.Run(fmt.Sprint(of), func(t *testing.T) {
			for seed := range uint64(60) {
				f := filler{rand.New(rand.NewPCG(seed, 1)), []int{0, 5, 30, 80}[seed%4]}
				o := reflect.New(of)
				f.fill(o.Elem(), 0)
				want, err := json.Marshal(o.Interface())
				if err != nil {
					t.Fatal(err)
				}
				got, err := Marshal(o.Interface())
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					at := 0
					for at < min(len(got), len(want)) && got[at] == want[at] {
						at++
					}
					t.Fatalf("seed %d, at byte %d:\ngot  …%.200s\nwant …%.200s", seed, at, got[max(0, at-60):], want[max(0, at-60):])
				}
			}
		})
	}
}

// What is no pointer to a struct is written too, and what cannot be written is an error.
func TestOtherValues(t *testing.T) {
	for _, v := range []any{nil, 5, "x", corev1.Pod{}, (*corev1.Pod)(nil), &[]int{1}, new(metav1.Unix(0, 0))} {
		want, _ := json.Marshal(v)
		if got, err := Marshal(v); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%v: got %s %v, want %s", v, got, err, want)
		}
	}
	if _, err := Marshal(&strange{Any: make(chan int)}); err == nil {
		t.Error("a channel was written")
	}
}

// aPod is one as nodes report it.
func aPod() *corev1.Pod {
	p := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{
			Name: "web-5d4f8c-x", Namespace: "default", UID: "0b5b5f4c-2f0e-4d0a-9d3c-1c9a1b2c3d4e", ResourceVersion: "1234567",
			CreationTimestamp: metav1.Unix(1_760_000_000, 0), Labels: map[string]string{"app": "web", "pod-template-hash": "5d4f8c"},
			Annotations: map[string]string{schema.AnnotationRevision: "d2f0", schema.AnnotationSource: "web.yaml:1", schema.AnnotationAuthor: "Ann"},
		},
		Spec: corev1.PodSpec{
			NodeName: "n1", RestartPolicy: corev1.RestartPolicyAlways, TerminationGracePeriodSeconds: new(int64(30)),
			Containers: []corev1.Container{{Name: "main", Image: "registry.example.org/web:7", ImagePullPolicy: corev1.PullIfNotPresent,
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}}}},
		},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIP: "10.42.0.7", PodIPs: []corev1.PodIP{{IP: "10.42.0.7"}}, HostIP: "192.0.2.1",
			ContainerStatuses: []corev1.ContainerStatus{{Name: "main", Ready: true, Image: "registry.example.org/web:7", ImageID: "sha256:7",
				Started: new(true), State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Unix(1_760_000_000, 0)}}}},
		},
	}
	for _, c := range []corev1.PodConditionType{corev1.PodScheduled, corev1.PodInitialized, corev1.ContainersReady, corev1.PodReady} {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{Type: c, Status: corev1.ConditionTrue, LastTransitionTime: metav1.Unix(1_760_000_000, 0)})
	}
	return p
}

func BenchmarkPod(b *testing.B) {
	p := aPod()
	for _, x := range []struct {
		name    string
		marshal func(any) ([]byte, error)
	}{{"wirejson", Marshal}, {"encoding/json", json.Marshal}} {
		b.Run(x.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := x.marshal(p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
