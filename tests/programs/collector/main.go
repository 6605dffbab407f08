// A receiver of traces: collector FILE NETWORK=ADDRESS... listens there (tcp=:4317,
// unix=/path) for OTLP over gRPC and appends a line of JSON for each span to the file. With the
// service that OpenTelemetry publishes and gRPC's own server, so that what it takes is what a
// collector takes.
package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"log"
	"net"
	"os"
	"strings"
	"sync"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	"google.golang.org/grpc"
)

type link struct {
	Trace string `json:"trace"`
	Span  string `json:"span"`
}

// What a test looks at of a span.
type span struct {
	Service    string            `json:"service"`
	Instance   string            `json:"instance"`
	Trace      string            `json:"trace"`
	Span       string            `json:"span"`
	Parent     string            `json:"parent"`
	Name       string            `json:"name"`
	Kind       string            `json:"kind"`
	Status     string            `json:"status"`
	Start      uint64            `json:"start"`
	End        uint64            `json:"end"`
	Attributes map[string]string `json:"attributes"`
	Events     []string          `json:"events"`
	Links      []link            `json:"links"`
}

type receiver struct {
	collector.UnimplementedTraceServiceServer
	lock sync.Mutex
	file *json.Encoder
}

func texts(all []*common.KeyValue) map[string]string {
	said := map[string]string{}
	for _, one := range all {
		switch value := one.Value.GetValue().(type) {
		case *common.AnyValue_StringValue:
			said[one.Key] = value.StringValue
		default:
			said[one.Key] = one.Value.String()
		}
	}
	return said
}

func (r *receiver) Export(_ context.Context, request *collector.ExportTraceServiceRequest) (*collector.ExportTraceServiceResponse, error) {
	r.lock.Lock()
	defer r.lock.Unlock()
	for _, resource := range request.ResourceSpans {
		of := texts(resource.GetResource().GetAttributes())
		for _, scope := range resource.ScopeSpans {
			for _, it := range scope.Spans {
				one := span{
					Service:    of["service.name"],
					Instance:   of["service.instance.id"],
					Trace:      hex.EncodeToString(it.TraceId),
					Span:       hex.EncodeToString(it.SpanId),
					Parent:     hex.EncodeToString(it.ParentSpanId),
					Name:       it.Name,
					Kind:       it.Kind.String(),
					Status:     it.GetStatus().GetCode().String(),
					Start:      it.StartTimeUnixNano,
					End:        it.EndTimeUnixNano,
					Attributes: texts(it.Attributes),
				}
				for _, event := range it.Events {
					one.Events = append(one.Events, event.Name)
				}
				for _, to := range it.Links {
					one.Links = append(one.Links, link{hex.EncodeToString(to.TraceId), hex.EncodeToString(to.SpanId)})
				}
				if err := r.file.Encode(one); err != nil {
					return nil, err
				}
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

func main() {
	file, err := os.OpenFile(os.Args[1], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		log.Fatal(err)
	}
	server := grpc.NewServer()
	collector.RegisterTraceServiceServer(server, &receiver{file: json.NewEncoder(file)})
	ended := make(chan error)
	for _, place := range os.Args[2:] {
		network, address, _ := strings.Cut(place, "=")
		listener, err := net.Listen(network, address)
		if err != nil {
			log.Fatal(err)
		}
		go func() { ended <- server.Serve(listener) }()
	}
	log.Fatal(<-ended)
}
