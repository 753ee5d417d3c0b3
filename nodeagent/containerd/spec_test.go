package containerd

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/nodeagent"
	"github.com/pawl-project/pawl/schema"
)

func TestArguments(t *testing.T) {
	image := &imageInfo{config: ocispec.ImageConfig{Entrypoint: []string{"entry"}, Cmd: []string{"cmd"}}}
	for name, c := range map[string]struct{ command, args, want []string }{
		"image's own":      {nil, nil, []string{"entry", "cmd"}},
		"args":             {nil, []string{"a"}, []string{"entry", "a"}},
		"command":          {[]string{"c"}, nil, []string{"c"}},
		"command and args": {[]string{"c"}, []string{"a"}, []string{"c", "a"}},
	} {
		got := arguments(&corev1.Container{Command: c.command, Args: c.args}, image)
		if !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	image := &imageInfo{config: ocispec.ImageConfig{Env: []string{"A=image", "PATH=/x", "B=image"}}}
	q := nodeagent.StartRequest{Pod: &corev1.Pod{}, Container: &corev1.Container{}, Env: []string{"B=pod", "C=1", "C=2", "D=a=b"}}
	q.Pod.Name = "p"
	want := []string{"PATH=/x", "HOSTNAME=p", "A=image", "B=pod", "C=2", "D=a=b"}
	if diff := cmp.Diff(want, environment(q, image)); diff != "" {
		t.Error(diff)
	}
	q.Pod.Namespace, q.Pod.Spec.Subdomain, q.Pod.Spec.SetHostnameAsFQDN = "n", "s", ptr.To(true)
	if got := environment(q, image)[1]; got != "HOSTNAME=p.s.n.svc.cluster.local" {
		t.Errorf("%s in a pod whose host name is its full one", got)
	}
	q.Pod.Spec.HostNetwork = true
	if own, err := os.Hostname(); err != nil || environment(q, image)[1] != "HOSTNAME="+own {
		t.Errorf("%s in a pod on the node's network, where uname says %s (%v)", environment(q, image)[1], own, err)
	}
}

func TestCapabilities(t *testing.T) {
	all := host{bounding: 1<<41 - 1}
	without := host{bounding: (1<<41 - 1) &^ (1 << 24)} // no SYS_RESOURCE
	for name, c := range map[string]struct {
		h         host
		s         security
		has, lack []string
		n         int
	}{
		"default":               {h: all, has: []string{"CAP_CHOWN", "CAP_NET_RAW"}, lack: []string{"CAP_SYS_ADMIN"}, n: 14},
		"drop ALL":              {h: all, s: security{drop: []corev1.Capability{"ALL"}}, n: 0},
		"drop ALL, add one":     {h: all, s: security{drop: []corev1.Capability{"ALL"}, add: []corev1.Capability{"NET_BIND_SERVICE"}}, has: []string{"CAP_NET_BIND_SERVICE"}, n: 1},
		"add":                   {h: all, s: security{add: []corev1.Capability{"sys_admin", "CAP_SYS_TIME"}}, has: []string{"CAP_SYS_ADMIN", "CAP_SYS_TIME"}, n: 16},
		"drop":                  {h: all, s: security{drop: []corev1.Capability{"NET_RAW"}}, lack: []string{"CAP_NET_RAW"}, n: 13},
		"add ALL":               {h: all, s: security{add: []corev1.Capability{"ALL"}}, n: 41},
		"add ALL, drop one":     {h: all, s: security{add: []corev1.Capability{"ALL"}, drop: []corev1.Capability{"SYS_ADMIN"}}, lack: []string{"CAP_SYS_ADMIN"}, n: 40},
		"add and drop ALL":      {h: all, s: security{add: []corev1.Capability{"ALL"}, drop: []corev1.Capability{"ALL"}}, n: 0},
		"add and drop one":      {h: all, s: security{add: []corev1.Capability{"SYS_ADMIN"}, drop: []corev1.Capability{"CAP_SYS_ADMIN"}}, lack: []string{"CAP_SYS_ADMIN"}, n: 14},
		"privileged":            {h: all, s: security{privileged: true, drop: []corev1.Capability{"ALL"}}, n: 41},
		"what the machine has":  {h: without, s: security{privileged: true}, lack: []string{"CAP_SYS_RESOURCE"}, n: 40},
		"what it does not have": {h: without, s: security{add: []corev1.Capability{"SYS_RESOURCE"}}, lack: []string{"CAP_SYS_RESOURCE"}, n: 14},
	} {
		got, err := c.h.capabilities(c.s)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if len(got.Bounding) != c.n || !slices.Equal(got.Bounding, got.Effective) || len(got.Inheritable)+len(got.Ambient) > 0 {
			t.Errorf("%s: %d: %v", name, len(got.Bounding), got)
		}
		for _, h := range c.has {
			if !slices.Contains(got.Bounding, h) {
				t.Errorf("%s: lacks %s", name, h)
			}
		}
		for _, l := range c.lack {
			if slices.Contains(got.Bounding, l) {
				t.Errorf("%s: has %s", name, l)
			}
		}
	}
	if _, err := all.capabilities(security{add: []corev1.Capability{"NOPE"}}); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("an unknown capability: %v", err)
	}
}

func TestResources(t *testing.T) {
	list := func(cpu, memory string) corev1.ResourceList {
		l := corev1.ResourceList{}
		if cpu != "" {
			l[corev1.ResourceCPU] = resource.MustParse(cpu)
		}
		if memory != "" {
			l[corev1.ResourceMemory] = resource.MustParse(memory)
		}
		return l
	}
	for name, c := range map[string]struct {
		requests, limits corev1.ResourceList
		want             resources
	}{
		"none":       {nil, nil, resources{shares: 2}},
		"requests":   {list("500m", "1Gi"), nil, resources{shares: 512}},
		"limits":     {nil, list("2", "64Mi"), resources{shares: 2048, quota: 200000, memory: 64 << 20}},
		"both":       {list("100m", "1Mi"), list("250m", "2Mi"), resources{shares: 102, quota: 25000, memory: 2 << 20}},
		"tiny limit": {list("1m", ""), list("1m", ""), resources{shares: 2, quota: 1000}},
		"zero":       {list("0", ""), list("0", "0"), resources{shares: 2}},
	} {
		if got := resourcesOf(&corev1.ResourceRequirements{Requests: c.requests, Limits: c.limits}); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
}

func TestOOMScore(t *testing.T) {
	with := func(requests, limits corev1.ResourceList) *corev1.Pod {
		p := &corev1.Pod{}
		p.Spec.Containers = []corev1.Container{{Resources: corev1.ResourceRequirements{Requests: requests, Limits: limits}}}
		return p
	}
	small := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse("1"), corev1.ResourceMemory: resource.MustParse("1Mi")}
	huge := corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("100Ti")}
	for name, c := range map[string]struct {
		p      *corev1.Pod
		lowest int
		want   int
	}{
		"best effort":           {with(nil, nil), -1000, 1000},
		"guaranteed":            {with(small, small), -1000, -997},
		"guaranteed, not free":  {with(small, small), 0, 0},
		"burstable, small":      {with(small, nil), -1000, 999},
		"burstable, huge":       {with(huge, nil), -1000, 3},
		"burstable, not so low": {with(huge, nil), 50, 50},
	} {
		if got := (host{lowestOOM: c.lowest}).oomScore(c.p, &c.p.Spec.Containers[0]); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// What a container sees of itself.
func TestContainerFromInside(t *testing.T) {
	g := newRig(t)
	g.seccompProfile("no/chmod.json", `{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["chmod","fchmodat","fchmodat2"],"action":"SCMP_ACT_ERRNO"}]}`)
	for name, c := range map[string]struct {
		change  func(p *testPod, c *corev1.Container)
		command string
		want    []string
		lack    []string
	}{
		"root by default": {nil, "id; pwd; hostname; cat /etc/hostname",
			[]string{"uid=0(root) gid=0(root)", "\n/\n", "inside\ninside\n"}, nil},
		"the image's user": {func(_ *testPod, c *corev1.Container) { c.Image = "stopper:1" }, "id; pwd; echo $FROM $HOME",
			[]string{"uid=1234(app) gid=1235(app) groups=1235(app),4242(extra)", "\n/tmp\n", "image /home/app"}, nil},
		"runAsUser": {func(p *testPod, c *corev1.Container) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To(int64(99)), RunAsGroup: ptr.To(int64(98)), FSGroup: ptr.To(int64(77)), SupplementalGroups: []int64{55}}
			c.SecurityContext = &corev1.SecurityContext{RunAsUser: ptr.To(int64(100))}
		}, "id", []string{"uid=100 gid=98 groups=55,77,98"}, nil},
		"runAsUser with a name in the image": {func(_ *testPod, c *corev1.Container) {
			c.SecurityContext = &corev1.SecurityContext{RunAsUser: ptr.To(int64(1234))}
		}, "id", []string{"uid=1234(app) gid=1235(app) groups=1235(app),4242(extra)"}, nil},
		"workingDir": {func(_ *testPod, c *corev1.Container) { c.WorkingDir = "/made/here" }, "pwd", []string{"/made/here\n"}, nil},
		"default security": {nil, "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; cat /proc/self/oom_score_adj; echo x > /proc/sys/kernel/hostname || echo kept; wc -c < /proc/keys",
			[]string{"CapEff:\t00000000a80425fb", "NoNewPrivs:\t0", "Seccomp:\t2", "\n1000\n", "kept", "\n0\n"}, nil},
		"hardened": {func(_ *testPod, c *corev1.Container) {
			c.SecurityContext = &corev1.SecurityContext{AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true),
				Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}}, SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeUnconfined}}
		}, "grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; touch /x || echo readonly; touch /etc/hosts || echo hosts readonly; touch /dev/shm/x && echo shm",
			[]string{"CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t0", "\nreadonly\n", "\nhosts readonly\n", "\nshm\n"}, nil},
		"image volume under a read-only root": {func(_ *testPod, c *corev1.Container) {
			c.Image = "stopper:1"
			c.SecurityContext = &corev1.SecurityContext{ReadOnlyRootFilesystem: ptr.To(true)}
		}, "touch /data/x && echo written", []string{"written\n"}, nil},
		"privileged": {func(_ *testPod, c *corev1.Container) {
			c.SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
		}, "grep -E 'Seccomp:' /proc/self/status; test -b /dev/vda && echo disk; mount -t tmpfs none /tmp && echo mounted", []string{"Seccomp:\t0", "disk\n", "mounted\n"}, nil},
		"no such syscall": {nil, "mount -t tmpfs none /tmp || echo refused", []string{"refused"}, nil},
		"kernel's files":  {nil, "cat /proc/mounts; ls /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max", []string{"shm /dev/shm tmpfs", "size=65536k", " /sys sysfs ro", "memory."}, nil},
		"environment":     {nil, "env", []string{"PATH=/usr/local/sbin", "HOSTNAME=inside"}, []string{"PAWL", "NOTIFY"}},
		"processes":       {nil, "ls -d /proc/[0-9]*", nil, []string{"/proc/2"}},
		"network":         {nil, "ip addr show lo; cat /etc/hosts /etc/resolv.conf", []string{"127.0.0.1/8", "LOOPBACK,UP", "10.99.", "\tinside\n"}, nil},
		"hostname":        {func(p *testPod, _ *corev1.Container) { p.Spec.Hostname = "other" }, "hostname; cat /etc/hosts", []string{"other\n", "\tother\n"}, nil},
		"host network":    {func(p *testPod, _ *corev1.Container) { p.Spec.HostNetwork = true }, "ls /sys/class/net; cat /etc/hosts", []string{"lo\n"}, []string{"\tinside\n"}},
		"aliases": {func(p *testPod, _ *corev1.Container) {
			p.Spec.HostAliases = []corev1.HostAlias{{IP: "1.2.3.4", Hostnames: []string{"x.test", "y.test"}}}
		}, "cat /etc/hosts", []string{"1.2.3.4\tx.test\ty.test\n"}, nil},
		"dns": {func(p *testPod, _ *corev1.Container) {
			p.Spec.DNSPolicy = corev1.DNSNone
			p.Spec.DNSConfig = &corev1.PodDNSConfig{Nameservers: []string{"9.9.9.9"}, Searches: []string{"a.test", "b.test"}, Options: []corev1.PodDNSConfigOption{{Name: "ndots", Value: ptr.To("2")}}}
		}, "cat /etc/resolv.conf", []string{"nameserver 9.9.9.9\nsearch a.test b.test\noptions ndots:2\n"}, nil},
		"sysctls": {func(p *testPod, _ *corev1.Container) {
			p.Spec.SecurityContext = &corev1.PodSecurityContext{Sysctls: []corev1.Sysctl{{Name: "net.ipv4.ip_unprivileged_port_start", Value: "80"}, {Name: "kernel.shm_rmid_forced", Value: "1"}}}
		}, "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/shm_rmid_forced", []string{"80\n1\n"}, nil},
		"local seccomp profile": {func(_ *testPod, c *corev1.Container) {
			c.SecurityContext = &corev1.SecurityContext{SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeLocalhost, LocalhostProfile: ptr.To("no/chmod.json")}}
		}, "touch /x; chmod 600 /x 2>/dev/null || echo refused; mkdir /y && echo made", []string{"refused\nmade\n"}, nil},
		"full name": {func(p *testPod, _ *corev1.Container) {
			p.Spec.Subdomain, p.Spec.SetHostnameAsFQDN = "db", ptr.To(true)
		}, "hostname; cat /etc/hosts", []string{"\ninside.db.default.svc.cluster.local\n", "\tinside.db.default.svc.cluster.local\tinside\n"}, nil},
		"terminal": {func(_ *testPod, c *corev1.Container) { c.TTY = true }, "test -t 1 && echo is one", []string{"is one"}, nil},
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			p := g.pod("inside")
			spec := p.add("main", "sh", "-c", c.command)
			if c.change != nil {
				c.change(p, spec)
			}
			p.tb = t
			end, out := p.run()
			if end.StartError != "" {
				t.Fatalf("%+v", end)
			}
			for _, want := range c.want {
				if !strings.Contains("\n"+out, want) {
					t.Errorf("lacks %q:\n%s", want, out)
				}
			}
			for _, lack := range c.lack {
				if strings.Contains(out, lack) {
					t.Errorf("has %q:\n%s", lack, out)
				}
			}
			p.remove()
		})
	}
}

// Containers of a pod share network, IPC, host name and /dev/shm, and one shim.
func TestContainersShareThePod(t *testing.T) {
	g := newRig(t)
	p := g.pod("shared")
	p.add("a", "sh", "-c", "echo hello > /dev/shm/note; for n in net ipc uts; do busybox readlink /proc/self/ns/$n; done; sleep 1000")
	p.add("b", "sh", "-c", "until cat /dev/shm/note 2>/dev/null; do sleep 0.01; done; for n in net ipc uts; do busybox readlink /proc/self/ns/$n; done")
	p.sandbox()
	a, b := p.start("a", 0), p.start("b", 0)
	eventually(t, "b read a's note", func() bool { return strings.Count(readLog(t, b.LogPath), "\n") == 4 })
	eventually(t, "a wrote", func() bool { return strings.Count(readLog(t, a.LogPath), "\n") == 3 })
	if outA, outB := readLog(t, a.LogPath), readLog(t, b.LogPath); outB != "hello\n"+outA {
		t.Errorf("a is in\n%s and b in\n%s", outA, outB)
	}
	if n := countShims(t, g); n != 1 {
		t.Errorf("%d shims, want one", n)
	}
}

func TestRefusedSpecs(t *testing.T) {
	g := newRig(t)
	for name, change := range map[string]func(c *corev1.Container){
		"runAsNonRoot": func(c *corev1.Container) { c.SecurityContext = &corev1.SecurityContext{RunAsNonRoot: ptr.To(true)} },
		"unknown capability": func(c *corev1.Container) {
			c.SecurityContext = &corev1.SecurityContext{Capabilities: &corev1.Capabilities{Add: []corev1.Capability{"NOPE"}}}
		},
		"AppArmor that is not there": func(c *corev1.Container) {
			c.SecurityContext = &corev1.SecurityContext{AppArmorProfile: &corev1.AppArmorProfile{Type: corev1.AppArmorProfileTypeRuntimeDefault}}
		},
		"group whose number is cut to root's": func(c *corev1.Container) {
			c.SecurityContext = &corev1.SecurityContext{RunAsGroup: ptr.To(int64(1) << 32)}
		},
		"unknown user": func(c *corev1.Container) { c.Image = "nobody:1" },
		"no command":   func(c *corev1.Container) { c.Image = "nobody:1"; c.Command = nil },
	} {
		p := g.pod("refused")
		change(p.add("main", "true"))
		p.sandbox()
		if c, err := g.rt.Start(g.ctx, p.request("main", 0)); !errors.Is(err, schema.ErrRefused) {
			t.Errorf("%s: %+v, %v", name, c, err)
		}
		if s := p.look(); len(s.Containers) > 0 {
			t.Errorf("%s: left %+v", name, s.Containers)
		}
	}
	if _, err := g.rt.SeenPod(g.ctx, "../../etc"); !errors.Is(err, schema.ErrRefused) {
		t.Errorf("a uid that is a path: %v", err)
	}
}

// Nothing an image says of itself becomes a label of a container (CVE-2026-53488).
func TestImageLabelsAreNotCopied(t *testing.T) {
	g := newRig(t)
	p := g.pod("labels")
	p.add("main", "true")
	p.sandbox()
	c := p.start("main", 0)
	stored, err := g.rt.client.ContainerService().Get(g.ctx, c.ID)
	if err != nil {
		t.Fatal(err)
	}
	for k := range stored.Labels {
		if !strings.HasPrefix(k, "pawl.dev/") {
			t.Errorf("label %s", k)
		}
	}
}
