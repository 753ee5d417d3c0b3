package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// fullNode is as many pods as a node takes.
const fullNode = 110

// BenchmarkIdleFullNode measures what the daemon, control plane and agent in one
// process, costs with a full node of pods and nothing to do.
func BenchmarkIdleFullNode(b *testing.B) {
	c := newCluster(b)
	c.push(map[string]string{"full.yaml": sleepers("full", fullNode)})
	c.running("full-", fullNode, 3*time.Minute)
	for b.Loop() {
		core, rss := c.quiet(b)
		row(fmt.Sprintf("idle with %d pods, everything but containerd", fullNode),
			fmt.Sprintf("%.0f MiB, %.1f %% of a core", rss, core), "agent: ≤ 60 MiB, ≤ 1 %")
	}
}

// BenchmarkProbed measures the same with a full node of pods that are probed
// every second. Each kind has an instance of its own.
func BenchmarkProbed(b *testing.B) {
	for name, probe := range map[string]string{
		"http": "httpGet: {path: /, port: 8080}",
		"tcp":  "tcpSocket: {port: 8080}",
	} {
		b.Run(name, func(b *testing.B) {
			c := newCluster(b)
			c.push(map[string]string{"full.yaml": probed("full", fullNode, probe)})
			c.eventually(3*time.Minute, "every pod is ready, by its probe", func() error {
				ready := 0
				for _, p := range c.pods("full-") {
					if s := p.Status.ContainerStatuses; len(s) == 1 && s[0].Ready {
						ready++
					}
				}
				if ready != fullNode {
					return fmt.Errorf("%d are ready", ready)
				}
				return nil
			})
			for b.Loop() {
				core, rss := c.quiet(b)
				row(fmt.Sprintf("%d pods, each probed every second (%s)", fullNode, name),
					fmt.Sprintf("%.0f MiB, %.1f %% of a core", rss, core), "≤ 3 %")
			}
		})
	}
}

// probed is a Deployment of pods that serve a page and are probed every second.
func probed(name string, n int, probe string) string {
	const sleeps = `sleep 1000000 & wait"]`
	return strings.Replace(sleepers(name, n), sleeps, `mkdir /www; echo ok >/www/index.html; httpd -f -p 8080 -h /www & wait"]`, 1) +
		"        readinessProbe: {periodSeconds: 1, " + probe + "}\n"
}

// quiet is the share of a core and the MiB that the daemon takes while nothing
// changes, over half a minute.
func (c *cluster) quiet(b *testing.B) (core, rss float64) {
	const settle, window = 15 * time.Second, 30 * time.Second
	time.Sleep(settle)
	before, began := c.cpu(), time.Now()
	time.Sleep(window)
	core = 100 * float64(c.cpu()-before) / float64(time.Since(began))
	rss = float64(c.residentKiB()) / 1024
	b.ReportMetric(core, "%-of-a-core")
	b.ReportMetric(rss, "MiB-RSS")
	return core, rss
}
