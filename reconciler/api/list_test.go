package api

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/pawl-project/pawl/reconciler/access"
	"github.com/pawl-project/pawl/reconciler/api/cache"
	"github.com/pawl-project/pawl/schema"
)

// An answered request.
type answered struct {
	*http.Response
	text string
}

// ask sends a request as the administrator. A header is "Name: value".
func (d *door) ask(method, path, body string, headers ...string) answered {
	r, err := http.NewRequest(method, d.http.URL+path, strings.NewReader(body))
	if err != nil {
		d.t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer admin")
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		d.t.Fatal(err)
	}
	defer a.Body.Close()
	text, err := io.ReadAll(a.Body)
	if err != nil {
		d.t.Fatal(err)
	}
	return answered{a, string(text)}
}

func (a answered) decode(t testing.TB, into any) {
	t.Helper()
	if err := yaml.Unmarshal([]byte(a.text), into); err != nil {
		t.Fatalf("%v in %s", err, a.text)
	}
}

// status is the Status of a failure, as "code reason: message".
func (a answered) status(t testing.TB) string {
	t.Helper()
	var s metav1.Status
	a.decode(t, &s)
	if int(s.Code) != a.StatusCode {
		t.Errorf("code %d in an answer of %d", s.Code, a.StatusCode)
	}
	return fmt.Sprintf("%d %s: %s", s.Code, s.Reason, s.Message)
}

func (a answered) names(t testing.TB) (names []string, meta metav1.ListMeta) {
	t.Helper()
	var l metav1.PartialObjectMetadataList
	a.decode(t, &l)
	for _, i := range l.Items {
		names = append(names, i.Name)
	}
	return names, l.ListMeta
}

func TestPagesShowOneMoment(t *testing.T) {
	d := newDoor(t)
	for n := range 5 {
		d.put(configFixture("default", fmt.Sprintf("c%d", n), "1"))
	}
	a := d.ask("GET", "/api/v1/namespaces/default/configmaps?limit=2", "")
	names, first := a.names(t)
	if fmt.Sprint(names) != "[c0 c1]" || first.RemainingItemCount == nil || *first.RemainingItemCount != 3 || first.Continue == "" {
		t.Fatal(a.text)
	}
	// What happens now belongs to a later moment.
	d.cache.Delete(schema.ObjectKey{Kind: schema.ConfigMaps, Namespace: "default", Name: "c3"}, 0)
	d.put(configFixture("default", "c2", "2"))
	d.put(configFixture("default", "c2b", "1"))
	a = d.ask("GET", "/api/v1/namespaces/default/configmaps?limit=9&continue="+first.Continue, "")
	names, rest := a.names(t)
	if fmt.Sprint(names) != "[c2 c3 c4]" || rest.ResourceVersion != first.ResourceVersion || rest.Continue != "" || strings.Contains(a.text, `"value":"2"`) {
		t.Fatal(a.text)
	}
	a = d.ask("GET", "/api/v1/configmaps?resourceVersionMatch=Exact&resourceVersion="+first.ResourceVersion, "")
	if names, _ := a.names(t); fmt.Sprint(names) != "[c0 c1 c2 c3 c4]" {
		t.Fatal(a.text)
	}
	names, _ = d.ask("GET", "/api/v1/configmaps?limit=2&resourceVersion=0", "").names(t)
	if len(names) != 5 {
		t.Error("a list of any version comes whole:", names)
	}
	_, meta := d.ask("GET", "/api/v1/configmaps?limit=2&labelSelector=value%3D1", "").names(t)
	if meta.RemainingItemCount != nil || meta.Continue == "" {
		t.Error("how many are left is not known with a selector:", meta)
	}
}

// A page of a version is of that version, also when the caller does not say how
// the version is meant, as Kubernetes documents it; a whole list is not older.
func TestAPageOfAVersion(t *testing.T) {
	d := newDoor(t)
	d.put(configFixture("default", "a", "1"))
	then := d.put(configFixture("default", "b", "1"))
	d.cache.Delete(schema.ObjectKey{Kind: schema.ConfigMaps, Namespace: "default", Name: "a"}, 0)
	list := fmt.Sprint("/api/v1/configmaps?resourceVersion=", then)
	for query, want := range map[string]string{
		"": "[b] 3", "&limit=5": "[a b] 2", "&limit=1": "[a] 2", "&limit=5&resourceVersionMatch=NotOlderThan": "[b] 3", "&limit=5&resourceVersionMatch=Exact": "[a b] 2",
	} {
		names, meta := d.ask("GET", list+query, "").names(t)
		if got := fmt.Sprint(names, " ", meta.ResourceVersion); got != want {
			t.Errorf("%q: %s, want %s", query, got, want)
		}
	}
}

func TestExpiredContinueGoesOnWithAFreshToken(t *testing.T) {
	d := newDoor(t, func(o *Options) { o.Cache = cache.New(cache.Options{Window: 2}) })
	d.cache = d.server.Cache
	for n := range 5 {
		d.put(configFixture("default", fmt.Sprintf("c%d", n), "1"))
	}
	_, first := d.ask("GET", "/api/v1/configmaps?limit=2", "").names(t)
	for n := range 4 {
		d.put(configFixture("default", "c0", fmt.Sprint(n)))
	}
	a := d.ask("GET", "/api/v1/configmaps?limit=2&continue="+first.Continue, "")
	if s := a.status(t); a.StatusCode != http.StatusGone || s != "410 Expired: "+tooOldToContinue {
		t.Fatal(s)
	}
	var s metav1.Status
	a.decode(t, &s)
	names, _ := d.ask("GET", "/api/v1/configmaps?continue="+s.Continue, "").names(t)
	if fmt.Sprint(names) != "[c2 c3 c4]" {
		t.Error(names)
	}
	if s := d.ask("GET", "/api/v1/configmaps?resourceVersionMatch=Exact&resourceVersion="+first.ResourceVersion, "").status(t); !strings.HasPrefix(s, "410 Expired: ") {
		t.Error(s)
	}
}

// What a dry run changes of a pod that runs already is judged without the node
// that was chosen for it, which stands in what the caller has read.
func TestDryRunOfAPodThatHasItsNode(t *testing.T) {
	d := newDoor(t).furnish()
	const pod = "/api/v1/namespaces/default/pods/talk"
	var p corev1.Pod
	d.ask("PATCH", pod+"?dryRun=All", `{"metadata":{"labels":{"new":"1"}}}`, "Content-Type: application/merge-patch+json").decode(t, &p)
	if p.Labels["new"] != "1" || p.Spec.NodeName != "n1" || p.Status.Phase != corev1.PodRunning {
		t.Errorf("patched: %v on %q, %s", p.Labels, p.Spec.NodeName, p.Status.Phase)
	}
	whole := d.ask("GET", pod, "").text
	if a := d.ask("PUT", pod+"?dryRun=All", whole); a.StatusCode != http.StatusOK {
		t.Error("put as it was read:", a.status(t))
	}
	for what, a := range map[string]answered{
		"moved": d.ask("PATCH", pod+"?dryRun=All", `{"spec":{"nodeName":"n2"}}`, "Content-Type: application/merge-patch+json"),
		"made":  d.ask("POST", "/api/v1/namespaces/default/pods?dryRun=All", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x"},"spec":{"nodeName":"n1"}}`),
	} {
		if s := a.status(t); !strings.Contains(s, "spec.nodeName: is not supported") {
			t.Error(what, s)
		}
	}
}

func TestFailuresSpeakAsKubernetes(t *testing.T) {
	d := newDoor(t).furnish()
	git := " in http://127.0.0.1:7420/git/cluster.git (branch main) and push"
	manifest := `{"kind":"Deployment","apiVersion":"apps/v1","metadata":{"name":"new"},"spec":{"replicas":-1}}`
	for _, q := range []struct{ method, path, body, want string }{
		{"GET", "/api/v1/pods?fieldSelector=foo%3Dbar", "", `400 BadRequest: field label not supported: foo`},
		{"GET", "/api/v1/configmaps?fieldSelector=foo%3Dbar", "", `400 BadRequest: "foo" is not a known field selector: only "metadata.name", "metadata.namespace"`},
		{"GET", "/api/v1/namespaces/default/pods/nosuch", "", `404 NotFound: pods "nosuch" not found`},
		{"GET", "/apis/apps/v1/namespaces/default/deployments/nosuch", "", `404 NotFound: deployments.apps "nosuch" not found`},
		{"GET", "/api/v1/nosuch", "", "404 NotFound: the server could not find the requested resource"},
		{"GET", "/api/v1/pods/talk", "", "404 NotFound: the server could not find the requested resource"},
		{"GET", "/apis/nosuch/v1", "", "404 NotFound: the server could not find the requested resource"},
		{"GET", "/apis/apps/v1beta1/deployments", "", "404 NotFound: the server could not find the requested resource"},
		{"GET", "/api/v1/namespaces/default/pods/talk/portforward", "", "404 NotFound: the server could not find the requested resource"},
		{"GET", "/api/v1/pods?limit=many", "", `400 BadRequest: strconv.ParseInt: parsing "many": invalid syntax`},
		{"GET", "/api/v1/pods?resourceVersion=x", "", `400 BadRequest: resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax`},
		{"GET", "/api/v1/pods?resourceVersionMatch=Exact", "", `422 Invalid: ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided`},
		{"GET", "/api/v1/pods?continue=x", "", `400 BadRequest: invalid continue token: continue key is not valid: illegal base64 data at input byte 0`},
		{"DELETE", "/apis/apps/v1/namespaces/default/deployments/web", "", `405 MethodNotAllowed: deployments.apps "web" is changed in Git only: edit apps/web.yaml:1` + git},
		{"POST", "/apis/apps/v1/namespaces/default/deployments", manifest, `405 MethodNotAllowed: deployments.apps "new" is added in Git only: add a file with it to http://127.0.0.1:7420/git/cluster.git (branch main) and push`},
		{"DELETE", "/api/v1/namespaces/default/configmaps", "", `405 MethodNotAllowed: configmaps are changed in Git only: edit the files` + git},
		{"PATCH", "/api/v1/nodes/n1/status", "{}", `405 MethodNotAllowed: nodes "n1" cannot be changed: it is what the cluster says of itself`},
		{"POST", "/apis/apps/v1/namespaces/default/deployments?dryRun=All", manifest, `422 Invalid: Deployment.apps "new" is invalid: spec.replicas: -1 is less than 0; 0 or more`},
		{"POST", "/apis/apps/v1/namespaces/default/deployments?dryRun=Some", manifest, `422 Invalid: CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Some"]: supported values: "All"`},
		{"POST", "/apis/apps/v1/namespaces/default/deployments", strings.Repeat("x", maxBody+1), `413 RequestEntityTooLarge: Request entity too large: limit is 3145728`},
		{"POST", "/version", "", `405 MethodNotAllowed: the server does not allow this method on the requested resource`},
		{"DELETE", "/api/v1/namespaces/default/pods/talk?gracePeriodSeconds=x", "", `400 BadRequest: strconv.ParseInt: parsing "x": invalid syntax`},
	} {
		if s := d.ask(q.method, q.path, q.body, "Content-Type: application/json").status(t); s != q.want {
			t.Errorf("%s %s:\n got %s\nwant %s", q.method, q.path, s, q.want)
		}
	}
	if s := d.ask("GET", "/api/v1/pods", "", "Accept: text/html").status(t); s != "406 NotAcceptable: only the following media types are accepted: application/json, application/yaml, application/vnd.kubernetes.protobuf" {
		t.Error(s)
	}
	if s := d.ask("PATCH", "/api/v1/namespaces/default/configmaps/conf?dryRun=All", "{}", "Content-Type: text/plain").status(t); !strings.HasPrefix(s, "415 UnsupportedMediaType: ") {
		t.Error(s)
	}
	if s := d.ask("GET", "/api/v1/pods", "", "Authorization: none").status(t); s != "401 Unauthorized: Unauthorized" {
		t.Error(s)
	}
	if s := d.ask("GET", "/api/v1/namespaces/default/secrets/hush", "", "Authorization: Bearer view").status(t); s != `403 Forbidden: secrets "hush" is forbidden: User "vic" cannot get resource "secrets" in API group "" in the namespace "default"` {
		t.Error(s)
	}
}

func TestNothingIsServedBeforeThePictureIsWhole(t *testing.T) {
	ready := false
	d := newDoor(t, func(o *Options) { o.Ready = func() bool { return ready } }).furnish()
	a := d.ask("GET", "/api/v1/pods", "")
	if a.StatusCode != http.StatusServiceUnavailable || a.Header.Get("Retry-After") != "1" {
		t.Error(a.Status, a.text)
	}
	if a := d.ask("GET", "/api/v1", ""); a.StatusCode != http.StatusOK {
		t.Error("discovery needs no picture:", a.Status)
	}
	ready = true
	if a := d.ask("GET", "/api/v1/pods", ""); a.StatusCode != http.StatusOK {
		t.Error(a.Status)
	}
}

func TestFormsOfOneObject(t *testing.T) {
	d := newDoor(t).furnish()
	const path = "/api/v1/namespaces/default/pods/talk"
	var pod corev1.Pod
	d.ask("GET", path, "", "Accept: application/yaml").decode(t, &pod)
	if pod.Name != "talk" || pod.Kind != "Pod" {
		t.Error(pod.Name, pod.Kind)
	}
	var table metav1.Table
	for include, want := range map[string]string{"": "PartialObjectMetadata", "None": "", "Object": "Pod"} {
		a := d.ask("GET", path+"?includeObject="+include, "", "Accept: application/json;as=Table;g=meta.k8s.io;v=v1")
		table = metav1.Table{}
		a.decode(t, &table)
		var kind metav1.TypeMeta
		if raw := table.Rows[0].Object.Raw; raw != nil {
			if err := json.Unmarshal(raw, &kind); err != nil {
				t.Fatal(err)
			}
		}
		if len(table.ColumnDefinitions) < 5 || table.Rows[0].Cells[0] != "talk" || kind.Kind != want {
			t.Error(include, a.text)
		}
	}
	var part metav1.PartialObjectMetadata
	d.ask("GET", path, "", "Accept: application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").decode(t, &part)
	if part.Kind != "PartialObjectMetadata" || part.APIVersion != "meta.k8s.io/v1" || part.Labels["app"] != "talk" {
		t.Errorf("%+v", part)
	}
	// kubectl's own wish: Table twice, then plain JSON; and a kind without protobuf.
	a := d.ask("GET", "/apis/pawl.dev/v1/revisions", "", "Accept: application/vnd.kubernetes.protobuf,application/json;q=0.5")
	if a.Header.Get("Content-Type") != "application/json" {
		t.Error(a.Header)
	}
	if a := d.ask("GET", path, "", "Accept: application/vnd.kubernetes.protobuf;as=Table;g=meta.k8s.io;v=v1"); a.StatusCode != http.StatusNotAcceptable {
		t.Error("a Table has no protobuf:", a.Status)
	}
	if a := d.ask("GET", path, "", "User-Agent: curl/8"); !strings.Contains(a.text, "\n  \"kind\": \"Pod\"") {
		t.Error("not spread out for a person:", a.text)
	}
	if a := d.ask("HEAD", path, ""); a.StatusCode != http.StatusOK || a.text != "" {
		t.Error(a.Status, a.text)
	}
	if a := d.ask("OPTIONS", path, ""); a.StatusCode != http.StatusOK || a.Header.Get("Allow") == "" {
		t.Error(a.Status, a.Header)
	}
}

func TestSecretsNeverLeaveSealed(t *testing.T) {
	d := newDoor(t).furnish()
	for _, path := range []string{"/api/v1/secrets", "/api/v1/namespaces/default/secrets/hush"} {
		for _, accept := range []string{"application/json", "application/yaml", string(protoMedia), "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1", "application/json;as=Table;g=meta.k8s.io;v=v1"} {
			a := d.ask("GET", path, "", "Accept: "+accept)
			if a.StatusCode != http.StatusOK || strings.Contains(a.text, "pawl.dev/sealed") || strings.Contains(a.text, "sealed.age") {
				t.Errorf("%s as %s: %s %q", path, accept, a.Status, a.text)
			}
		}
	}
	k := schema.ObjectKey{Kind: schema.Secrets, Namespace: "default", Name: "hush"}
	if i, _ := d.cache.Get(k); !strings.Contains(string(i.JSON()), "sealed.age") {
		t.Error("the cache was written to")
	}
}

// TestLargeAnswersAreCompressed asks from another machine; on this one it would
// cost more than it saves.
func TestLargeAnswersAreCompressed(t *testing.T) {
	d := newDoor(t)
	for n := range 500 {
		d.put(podFixture("default", fmt.Sprint("web-", n), nil))
	}
	for from, want := range map[string]string{"192.0.2.1:4444": "gzip", "127.0.0.1:4444": ""} {
		r := httptest.NewRequest("GET", "/api/v1/pods", nil)
		r.RemoteAddr = from
		r.Header.Set("Accept-Encoding", "gzip")
		w := httptest.NewRecorder()
		d.server.ServeHTTP(w, r.WithContext(access.WithUser(r.Context(), admin)))
		if got := w.Header().Get("Content-Encoding"); got != want || w.Code != http.StatusOK {
			t.Errorf("from %s: %d, %q", from, w.Code, got)
		}
	}
}

func TestProbes(t *testing.T) {
	failing := false
	d := newDoor(t, func(o *Options) {
		o.Checks = func() []Check {
			c := []Check{{Name: "store"}}
			if failing {
				c[0].Err = fmt.Errorf("no connection to 10.0.0.1")
			}
			return c
		}
	})
	for _, q := range []struct{ path, want string }{
		{"/livez", "ok"}, {"/healthz", "ok"}, {"/readyz", "ok"}, {"/readyz/store", "ok"}, {"/livez/ping", "ok"},
		{"/readyz?verbose", "[+]ping ok\n[+]store ok\nreadyz check passed\n"},
		{"/livez?verbose=true", "[+]ping ok\nlivez check passed\n"},
		{"/readyz?verbose&exclude=store", "[+]ping ok\n[+]store excluded: ok\nreadyz check passed\n"},
		{"/readyz?verbose&exclude=x", "[+]ping ok\n[+]store ok\nwarn: some health checks cannot be excluded: no matches for \"x\"\nreadyz check passed\n"},
	} {
		if a := d.ask("GET", q.path, "", "Authorization: none"); a.StatusCode != http.StatusOK || a.text != q.want {
			t.Errorf("%s: %s %q", q.path, a.Status, a.text)
		}
	}
	failing = true
	if a := d.ask("GET", "/readyz", "", "Authorization: none"); a.StatusCode != 500 || a.text != "[+]ping ok\n[-]store failed: reason withheld\nreadyz check failed\n" {
		t.Errorf("%s %q", a.Status, a.text)
	}
	if a := d.ask("GET", "/readyz", ""); a.StatusCode != 500 || !strings.Contains(a.text, "no connection to 10.0.0.1") {
		t.Errorf("%s %q", a.Status, a.text)
	}
}

func TestMetricsCountByVerbResourceAndCode(t *testing.T) {
	d := newDoor(t).furnish()
	d.ask("GET", "/api/v1/pods", "")
	d.ask("GET", "/api/v1/namespaces/default/pods/nosuch", "")
	d.ask("GET", "/api/v1/pods?watch=1&timeoutSeconds=1&resourceVersion=1", "")
	var b strings.Builder
	d.server.Metrics(&b)
	for _, line := range []string{
		`apiserver_request_total{verb="LIST",resource="pods",code="200"} 1`,
		`apiserver_request_total{verb="GET",resource="pods",code="404"} 1`,
		`apiserver_request_total{verb="WATCH",resource="pods",code="200"} 1`,
		`apiserver_request_duration_seconds_count{verb="LIST",resource="pods"} 1`,
		`apiserver_longrunning_requests{verb="WATCH",resource="pods"} 0`,
	} {
		if !strings.Contains(b.String(), line+"\n") {
			t.Errorf("no line %s in\n%s", line, b.String())
		}
	}
	if strings.Contains(b.String(), `duration_seconds_count{verb="WATCH"`) {
		t.Error("a watch has no latency")
	}
	for in := bufio.NewScanner(strings.NewReader(b.String())); in.Scan(); {
		if f := strings.Fields(in.Text()); f[0] != "#" && len(f) != 2 {
			t.Error("not a sample:", in.Text())
		}
	}
}
