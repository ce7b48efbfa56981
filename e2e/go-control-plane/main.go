// A control plane made of go-control-plane, which serves the dynamic resources of that project's own integration test.
//
// What is posted to -control is a configuration in JSON (see configuration) and replaces the one before; each line on standard output is
// what a client said (see event).
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	clusterservice "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointservice "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	listenerservice "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	routeservice "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	secretservice "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	matcher "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	config "github.com/envoyproxy/go-control-plane/pkg/server/config"
	"github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	testresource "github.com/envoyproxy/go-control-plane/pkg/test/resource/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"
)

const nodeID = "test-id"

// configuration says what to serve.
type configuration struct {
	// Version of the whole.
	Version string `json:"version"`
	// Names is what the names of clusters and routes are made from: with other names, everything is replaced.
	Names string `json:"names"`
	// Upstream is the port of every endpoint.
	Upstream uint32 `json:"upstream"`
	// HTTP and TCP say how many listeners of each kind there are, from the base port on.
	HTTP int `json:"http"`
	TCP  int `json:"tcp"`
	// Broken lists what cannot be accepted beside what can: "listener", "cluster", "route", "endpoints".
	Broken []string `json:"broken"`
}

// event is something that a client said of a type of resource.
type event struct {
	Type string `json:"type"`
	// Refused tells what was wrong, where the client refused something.
	Refused string `json:"refused,omitempty"`
	// Stream tells the kind of stream it came on.
	Stream string `json:"stream"`
}

func main() {
	mode := flag.String("mode", testresource.Ads, "ads, delta-ads, xds, delta")
	address := flag.String("listen", "127.0.0.1:18000", "where to serve")
	control := flag.String("control", "127.0.0.1:18001", "where configurations are taken")
	base := flag.Uint("base", 9000, "port of the first listener")
	flag.Parse()
	log.SetOutput(os.Stderr)

	ctx := context.Background()
	snapshots := cache.NewSnapshotCache(*mode == testresource.Ads, cache.IDHash{}, nil)
	var options []config.XDSOption
	if *mode == testresource.Ads {
		options = append(options, sotw.WithOrderedADS())
	}
	xds := server.NewServer(ctx, snapshots, newTeller(), options...)
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(serve(xds, listener)) }()

	take := func(response http.ResponseWriter, request *http.Request) {
		var wanted configuration
		err := json.NewDecoder(request.Body).Decode(&wanted)
		if err == nil {
			err = wanted.put(ctx, snapshots, *mode, uint32(*base))
		}
		if err != nil {
			http.Error(response, err.Error(), http.StatusBadRequest)
		}
	}
	log.Fatal(http.ListenAndServe(*control, http.HandlerFunc(take)))
}

func (wanted configuration) put(ctx context.Context, snapshots cache.SnapshotCache, mode string, base uint32) error {
	snapshot, err := wanted.snapshot(mode, base)
	if err != nil {
		return err
	}
	return snapshots.SetSnapshot(ctx, nodeID, snapshot)
}

func serve(xds server.Server, listener net.Listener) error {
	grpcServer := grpc.NewServer()
	discovery.RegisterAggregatedDiscoveryServiceServer(grpcServer, xds)
	endpointservice.RegisterEndpointDiscoveryServiceServer(grpcServer, xds)
	clusterservice.RegisterClusterDiscoveryServiceServer(grpcServer, xds)
	routeservice.RegisterRouteDiscoveryServiceServer(grpcServer, xds)
	listenerservice.RegisterListenerDiscoveryServiceServer(grpcServer, xds)
	secretservice.RegisterSecretDiscoveryServiceServer(grpcServer, xds)
	return grpcServer.Serve(listener)
}

// snapshot makes what go-control-plane's integration test makes, without what other programs are needed for, and with what is broken.
func (wanted configuration) snapshot(mode string, base uint32) (*cache.Snapshot, error) {
	test := testresource.TestSnapshot{
		Xds:              mode,
		Version:          wanted.Names,
		UpstreamPort:     wanted.Upstream,
		BasePort:         base,
		NumClusters:      4,
		NumHTTPListeners: wanted.HTTP,
		NumTCPListeners:  wanted.TCP,
	}
	generated := test.Generate()
	resources := map[resource.Type][]types.Resource{}
	for _, kind := range []resource.Type{resource.EndpointType, resource.ClusterType, resource.RouteType, resource.ListenerType} {
		for _, each := range generated.GetResources(kind) {
			resources[kind] = append(resources[kind], each)
		}
	}
	for _, what := range wanted.Broken {
		if err := spoil(what, mode, base, resources); err != nil {
			return nil, err
		}
	}
	return cache.NewSnapshot(wanted.Version, resources)
}

// spoil adds a listener or a cluster that cannot be accepted, or makes such of the first route or of the endpoints of the first cluster.
func spoil(what, mode string, base uint32, resources map[resource.Type][]types.Resource) error {
	switch what {
	case "listener":
		// Scoped routes are no part of what weft-proxy implements.
		listener := testresource.MakeScopedRouteHTTPListenerForRoute(mode, "broken", base+100, firstOf(resources[resource.RouteType]))
		resources[resource.ListenerType] = append(resources[resource.ListenerType], listener)
	case "cluster":
		broken := &clusterv3.Cluster{
			Name:                 "broken",
			ConnectTimeout:       durationpb.New(-time.Second),
			ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		}
		resources[resource.ClusterType] = append(resources[resource.ClusterType], broken)
	case "route":
		first := firstOf(resources[resource.RouteType])
		for _, each := range resources[resource.RouteType] {
			if route := each.(*routev3.RouteConfiguration); route.GetName() == first {
				expression := &matcher.RegexMatcher{Regex: "("}
				route.VirtualHosts[0].Routes[0].Match = &routev3.RouteMatch{
					PathSpecifier: &routev3.RouteMatch_SafeRegex{SafeRegex: expression},
				}
			}
		}
	case "endpoints":
		first := firstOf(resources[resource.EndpointType])
		for _, each := range resources[resource.EndpointType] {
			if endpoints := each.(*endpointv3.ClusterLoadAssignment); endpoints.GetClusterName() == first {
				endpoints.Endpoints[0].LbEndpoints[0].GetEndpoint().GetAddress().GetSocketAddress().Address = "nowhere.test"
			}
		}
	default:
		return fmt.Errorf("%q is nothing that can be broken", what)
	}
	return nil
}

// firstOf is the least of the names: the order of a snapshot's resources is random.
func firstOf(resources []types.Resource) string {
	first := ""
	for _, each := range resources {
		if name := cache.GetResourceName(each); first == "" || name < first {
			first = name
		}
	}
	return first
}

// teller prints what clients say.
type teller struct {
	mutex   sync.Mutex
	encoder *json.Encoder
	// streams knows each stream's kind by its number: requests do not tell it.
	streams map[int64]string
}

func newTeller() server.CallbackFuncs {
	tell := &teller{encoder: json.NewEncoder(os.Stdout), streams: map[int64]string{}}
	return server.CallbackFuncs{
		StreamOpenFunc:      func(_ context.Context, id int64, url string) error { return tell.open(id, url) },
		DeltaStreamOpenFunc: func(_ context.Context, id int64, url string) error { return tell.open(id, url) },
		StreamRequestFunc: func(id int64, request *discovery.DiscoveryRequest) error {
			return tell.said(id, request.GetTypeUrl(), request.GetErrorDetail())
		},
		StreamDeltaRequestFunc: func(id int64, request *discovery.DeltaDiscoveryRequest) error {
			return tell.said(id, request.GetTypeUrl(), request.GetErrorDetail())
		},
	}
}

func (tell *teller) open(id int64, url string) error {
	tell.mutex.Lock()
	defer tell.mutex.Unlock()
	kind := "separate"
	if url == resource.AnyType {
		kind = "aggregated"
	}
	tell.streams[id] = kind
	return nil
}

func (tell *teller) said(id int64, url string, refused *status.Status) error {
	tell.mutex.Lock()
	defer tell.mutex.Unlock()
	name := url[strings.LastIndex(url, ".")+1:]
	return tell.encoder.Encode(event{Type: name, Refused: refused.GetMessage(), Stream: tell.streams[id]})
}
