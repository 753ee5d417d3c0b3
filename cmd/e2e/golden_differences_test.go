package e2e

import (
	"regexp"
	"testing"
)

// A goldenDifference is something that Pawl rightly prints otherwise.
type goldenDifference struct {
	lines      []string // the invocations
	why        string
	kubernetes string // a regular expression of what stands in the recording
	pawl       string // what stands there instead
}

// goldenDifferences is all that may differ from Kubernetes. It is to stay short:
// what has no reason in Pawl's design is a fault.
var goldenDifferences = []goldenDifference{
	{
		lines:      []string{"describe ns shop"},
		why:        "Pawl has no quotas and no limit ranges, and kubectl is silent about kinds that a server does not have",
		kubernetes: `\nNo resource quota\.\n\nNo LimitRange resource\.\n`,
	},
	{
		lines:      []string{"get --raw /api"},
		why:        "Pawl does not know by which address it is reached",
		kubernetes: `"serverAddress":"127\.0\.0\.1:PORT"`, pawl: `"serverAddress":""`,
	},
	{
		lines:      []string{"__complete get po"},
		why:        "Pawl does not serve these kinds",
		kubernetes: `podtemplates\npoddisruptionbudgets\.policy\n`,
	},
	{
		lines:      []string{"get pods --request-timeout=x"},
		why:        "the flag is pawl's own",
		kubernetes: `Invalid timeout value\. .*`, pawl: `--request-timeout "x" is no time, such as 5s or 2m`,
	},
	{
		lines:      []string{"get --raw '/api/v1/pods?resourceVersion=abc'"},
		why:        "Pawl says of a list what Kubernetes says of a watch",
		kubernetes: `invalid resource version: `,
	},
	{
		lines:      []string{"get --raw '/api/v1/pods?watch=1&resourceVersion=abc'"},
		why:        "Kubernetes takes the fault upon itself (500), Pawl says that it is the request's",
		kubernetes: `Error from server: `, pawl: "Error from server (BadRequest): ",
	},
	{
		lines:      []string{"explain pods --output=plaintext-openapiv9"},
		why:        "there is one format only: Pawl serves OpenAPI v3 and not v2",
		kubernetes: `error: unrecognized format: .*\n`, pawl: "error: unknown flag: --output\nSee 'pawl explain --help' for usage.\n",
	},
}

// recorded begins the line of an invocation that was recorded.
const recorded = "$ kubectl "

// differently is what Pawl is to print where Kubernetes prints s.
func differently(t *testing.T, s story) story {
	for _, d := range goldenDifferences {
		for _, line := range d.lines {
			if s.line != recorded+line {
				continue
			}
			words := regexp.MustCompile(d.kubernetes)
			if !words.MatchString(s.stdout) && !words.MatchString(s.stderr) {
				t.Errorf("%s\nKubernetes does not print %s", line, d.kubernetes)
			}
			s.stdout, s.stderr = words.ReplaceAllString(s.stdout, d.pawl), words.ReplaceAllString(s.stderr, d.pawl)
		}
	}
	return s
}
