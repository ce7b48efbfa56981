package main

import (
	"strings"
	"testing"
)

func TestPlanDerivesEveryAddress(t *testing.T) {
	p, err := newPlan("198.18.0.0/17", "198.19.0.0/16", "198.18.255.0/24", 2)
	if err != nil {
		t.Fatal(err)
	}
	want := `kubernetes_address=198.19.0.1
dns_address=198.19.0.10
node_bits=24
node_address=([1]=198.18.255.1 [2]=198.18.255.2)
node_pods=([1]=198.18.0.0/24 [2]=198.18.1.0/24)
`
	if got := p.shell(); got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}

func TestPlanRefusesWithAReasonAndAWayOut(t *testing.T) {
	for _, test := range []struct {
		name, pods, services, nodes string
		count                       int
		want                        string
	}{
		{"no range", "198.18.0.0", "198.19.0.0/16", "198.18.255.0/24", 1, `WEFT_CLUSTER_POD_RANGE: "198.18.0.0" is not an IPv4 range`},
		{"IPv6", "198.18.0.0/17", "fd00::/64", "198.18.255.0/24", 1, "WEFT_CLUSTER_SERVICE_RANGE"},
		{"bits behind the prefix", "198.18.0.1/17", "198.19.0.0/16", "198.18.255.0/24", 1, "write 198.18.0.0/17"},
		{"overlap", "198.18.0.0/16", "198.19.0.0/16", "198.18.255.0/24", 1, `overlaps WEFT_CLUSTER_POD_RANGE "198.18.0.0/16"`},
		{"somebody's addresses", "198.18.0.0/17", "8.8.0.0/16", "198.18.255.0/24", 1, "part of the internet"},
		{"too small for the nodes", "198.18.0.0/24", "198.19.0.0/16", "198.18.255.0/24", 2, "holds 1 times /24"},
		{"too small for anything", "198.18.0.0/17", "198.19.0.0/28", "198.18.255.0/24", 1, "/12 to /27"},
		{"no nodes", "198.18.0.0/17", "198.19.0.0/16", "198.18.255.0/24", 0, "choose 1 to 9"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := newPlan(test.pods, test.services, test.nodes, test.count)
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}
