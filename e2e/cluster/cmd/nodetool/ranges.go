package main

import (
	"fmt"
	"net/netip"
	"strings"
)

// What the controller manager hands to each node.
const podsPerNodeBits = 24

// Ranges that belong to nobody on the internet: benchmarks (RFC 2544) and private use (RFC 1918).
var allowed = []netip.Prefix{
	netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
}

// plan is every address of a cluster, derived from its three ranges.
type plan struct {
	// The Service "kubernetes": the first address of the services' range, as the API server takes it.
	kubernetes netip.Addr
	// The Service "kube-dns": the tenth, by custom.
	dns netip.Addr
	// Of the nodes, in order.
	nodes []netip.Addr
	// Of each node's pods, in order.
	pods []netip.Prefix
	// Of the network that the nodes share.
	nodesBits int
}

// newPlan refuses ranges that are malformed, overlap, or are too small for count nodes.
func newPlan(pods, services, nodes string, count int) (*plan, error) {
	if count < 1 || count > 9 {
		return nil, fmt.Errorf("WEFT_CLUSTER_NODES: %d nodes: choose 1 to 9", count)
	}
	ranges := []struct {
		name, text  string
		least, most int
		parsed      netip.Prefix
	}{
		{name: "WEFT_CLUSTER_POD_RANGE", text: pods, least: 12, most: podsPerNodeBits},
		{name: "WEFT_CLUSTER_SERVICE_RANGE", text: services, least: 12, most: 27},
		{name: "WEFT_CLUSTER_NODE_RANGE", text: nodes, least: 12, most: 28},
	}
	for i := range ranges {
		r := &ranges[i]
		prefix, err := netip.ParsePrefix(r.text)
		switch {
		case err != nil || !prefix.Addr().Is4():
			return nil, fmt.Errorf("%s: %q is not an IPv4 range such as 198.18.0.0/17", r.name, r.text)
		case prefix != prefix.Masked():
			return nil, fmt.Errorf("%s: %q has bits behind the prefix: write %s", r.name, r.text, prefix.Masked())
		case prefix.Bits() < r.least || prefix.Bits() > r.most:
			return nil, fmt.Errorf("%s: %q: choose a prefix of /%d to /%d", r.name, r.text, r.least, r.most)
		case !belongsToNobody(prefix):
			return nil, fmt.Errorf("%s: %q is part of the internet: choose from 198.18.0.0/15 or a private range", r.name, r.text)
		}
		for _, earlier := range ranges[:i] {
			if prefix.Overlaps(earlier.parsed) {
				return nil, fmt.Errorf("%s: %q overlaps %s %q: choose ranges that do not", r.name, r.text, earlier.name, earlier.text)
			}
		}
		r.parsed = prefix
	}
	if available := 1 << (podsPerNodeBits - ranges[0].parsed.Bits()); available < count {
		return nil, fmt.Errorf("WEFT_CLUSTER_POD_RANGE: %q holds %d times /%d, one a node, for %d nodes: choose a shorter prefix", pods, available, podsPerNodeBits, count)
	}

	p := &plan{
		kubernetes: nth(ranges[1].parsed.Addr(), 1),
		dns:        nth(ranges[1].parsed.Addr(), 10),
		nodesBits:  ranges[2].parsed.Bits(),
	}
	for i := range count {
		p.nodes = append(p.nodes, nth(ranges[2].parsed.Addr(), uint32(i+1)))
		p.pods = append(p.pods, netip.PrefixFrom(nth(ranges[0].parsed.Addr(), uint32(i)<<(32-podsPerNodeBits)), podsPerNodeBits))
	}
	return p, nil
}

func belongsToNobody(prefix netip.Prefix) bool {
	for _, a := range allowed {
		if a.Bits() <= prefix.Bits() && a.Contains(prefix.Addr()) {
			return true
		}
	}
	return false
}

// nth is the address n behind the first one.
func nth(first netip.Addr, n uint32) netip.Addr {
	b := first.As4()
	value := uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
	value += n
	return netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)})
}

// shell is the plan as assignments that bash can evaluate: nothing in it needs quoting. Arrays start at node 1.
func (p *plan) shell() string {
	var nodes, pods []string
	for i := range p.nodes {
		nodes = append(nodes, fmt.Sprintf("[%d]=%s", i+1, p.nodes[i]))
		pods = append(pods, fmt.Sprintf("[%d]=%s", i+1, p.pods[i]))
	}
	return fmt.Sprintf("kubernetes_address=%s\ndns_address=%s\nnode_bits=%d\nnode_address=(%s)\nnode_pods=(%s)\n",
		p.kubernetes, p.dns, p.nodesBits, strings.Join(nodes, " "), strings.Join(pods, " "))
}
