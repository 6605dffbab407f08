// Command metadata asks an API for what kube-apiserver answers in protobuf, with Kubernetes'
// own clients and decoders: one JSON request for each line of its standard input, and one line
// with the answer.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"sort"
	"strings"
	"sync"
	"time"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1beta1 "k8s.io/apimachinery/pkg/apis/meta/v1beta1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	serializers "k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/framer"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/scale"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

const media = "application/vnd.kubernetes.protobuf"

// request is one line of the input.
type request struct {
	Op string `json:"op"`
	// Of a request that is made as it stands.
	Method      string            `json:"method"`
	Path        string            `json:"path"`
	Accept      string            `json:"accept"`
	ContentType string            `json:"contentType"`
	Body        json.RawMessage   `json:"body"`
	Header      map[string]string `json:"header"`
	Events      int               `json:"events"`
	// Of the clients.
	Group     string `json:"group"`
	Version   string `json:"version"`
	Resource  string `json:"resource"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Replicas  int32  `json:"replicas"`
}

type event struct {
	Type   string `json:"type"`
	Object any    `json:"object"`
}

// answer is one line of the output.
type answer struct {
	Error       string  `json:"error,omitempty"`
	Code        int     `json:"code,omitempty"`
	ContentType string  `json:"contentType,omitempty"`
	Bytes       int     `json:"bytes,omitempty"`
	Millis      int64   `json:"millis,omitempty"`
	Object      any     `json:"object,omitempty"`
	Objects     []any   `json:"objects,omitempty"`
	Events      []event `json:"events,omitempty"`
	// What was answered to each request of a client: method, code, media type.
	Heard []string `json:"heard,omitempty"`
}

var (
	scheme     = runtime.NewScheme()
	serializer = protobuf.NewSerializer(scheme, scheme)
)

func init() {
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	for _, add := range []func(*runtime.Scheme) error{
		metav1.AddMetaToScheme, metav1beta1.AddMetaToScheme, autoscalingv1.AddToScheme, apidiscoveryv2.AddToScheme,
	} {
		if err := add(scheme); err != nil {
			panic(err)
		}
	}
	scheme.AddKnownTypes(metav1.SchemeGroupVersion, &metav1.DeleteOptions{})
}

// recorder notes what was answered.
type recorder struct {
	next  http.RoundTripper
	mutex sync.Mutex
	heard []string
}

func (r *recorder) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := r.next.RoundTrip(request)
	if err == nil {
		r.mutex.Lock()
		defer r.mutex.Unlock()
		method := request.Method
		if request.URL.Query().Get("watch") != "" {
			method = "WATCH"
		}
		r.heard = append(r.heard, fmt.Sprintf("%s %d %s", method, response.StatusCode, response.Header.Get("Content-Type")))
	}
	return response, err
}

func (r *recorder) take() []string {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	heard := r.heard
	r.heard = nil
	return heard
}

type program struct {
	config   *rest.Config
	recorder *recorder
	client   *http.Client
	informer cache.SharedIndexInformer
	heard    []event
	mutex    sync.Mutex
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "path of the kubeconfig")
	flag.Parse()
	if err := run(*kubeconfig); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.UserAgent = "metadata"
	config.QPS = -1
	p := &program{config: config, recorder: &recorder{}}
	config.WrapTransport = func(next http.RoundTripper) http.RoundTripper {
		p.recorder.next = next
		return p.recorder
	}
	if p.client, err = rest.HTTPClientFor(config); err != nil {
		return err
	}
	input := bufio.NewScanner(os.Stdin)
	input.Buffer(nil, 4<<20)
	output := json.NewEncoder(os.Stdout)
	for input.Scan() {
		var asked request
		if err := json.Unmarshal(input.Bytes(), &asked); err != nil {
			return err
		}
		p.recorder.take()
		said, err := p.carryOut(asked)
		if err != nil {
			said.Error = err.Error()
		}
		if err := output.Encode(said); err != nil {
			return err
		}
	}
	return input.Err()
}

func (p *program) carryOut(asked request) (answer, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	switch asked.Op {
	case "raw":
		return p.raw(ctx, asked)
	case "watch":
		return p.watch(ctx, asked)
	case "client":
		return p.metadata(ctx, asked)
	case "inform":
		return p.inform(asked)
	case "store":
		return p.store(), nil
	case "scale":
		return p.scale(ctx, asked)
	case "discovery":
		return p.discovery(asked)
	}
	return answer{}, fmt.Errorf("unknown operation %q", asked.Op)
}

// decode reads an object with Kubernetes' decoder. What that writes again must be what was
// read, byte for byte.
func decode(data []byte) (runtime.Object, error) {
	object, _, err := serializer.Decode(data, nil, nil)
	if err != nil {
		return nil, err
	}
	again := &bytes.Buffer{}
	if err := serializer.Encode(object, again); err != nil {
		return nil, err
	}
	if !bytes.Equal(again.Bytes(), data) {
		return nil, fmt.Errorf("Kubernetes writes other bytes of a %T:\n%x\n%x", object, again.Bytes(), data)
	}
	return object, nil
}

// body is JSON, or the same object in protobuf.
func (asked request) body() ([]byte, error) {
	if string(asked.Body) == "null" {
		return nil, nil
	}
	if asked.ContentType != media || len(asked.Body) == 0 {
		return asked.Body, nil
	}
	var text string
	if json.Unmarshal(asked.Body, &text) == nil {
		return []byte(text), nil
	}
	var kind metav1.TypeMeta
	if err := json.Unmarshal(asked.Body, &kind); err != nil {
		return nil, err
	}
	object, err := scheme.New(kind.GroupVersionKind())
	if err != nil {
		// None of a type that has such a form: the envelope alone.
		unknown := &runtime.Unknown{Raw: []byte{}}
		unknown.TypeMeta = runtime.TypeMeta{APIVersion: kind.APIVersion, Kind: kind.Kind}
		return serialized(unknown)
	}
	if err := json.Unmarshal(asked.Body, object); err != nil {
		return nil, err
	}
	object.GetObjectKind().SetGroupVersionKind(kind.GroupVersionKind())
	return serialized(object)
}

func serialized(object runtime.Object) ([]byte, error) {
	data := &bytes.Buffer{}
	err := serializer.Encode(object, data)
	return data.Bytes(), err
}

func (p *program) send(ctx context.Context, asked request) (*http.Response, error) {
	body, err := asked.body()
	if err != nil {
		return nil, err
	}
	url := strings.TrimSuffix(p.config.Host, "/") + asked.Path
	request, err := http.NewRequestWithContext(ctx, asked.Method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	for key, value := range asked.Header {
		request.Header.Set(key, value)
	}
	request.Header.Set("Accept", asked.Accept)
	if asked.ContentType != "" {
		request.Header.Set("Content-Type", asked.ContentType)
	}
	return p.client.Do(request)
}

func (p *program) raw(ctx context.Context, asked request) (answer, error) {
	began := time.Now()
	response, err := p.send(ctx, asked)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	said := answer{
		Code: response.StatusCode, ContentType: response.Header.Get("Content-Type"),
		Bytes: len(data), Millis: time.Since(began).Milliseconds(),
	}
	if err != nil {
		return said, err
	}
	if strings.HasPrefix(said.ContentType, media) {
		said.Object, err = decode(data)
		return said, err
	}
	return said, json.Unmarshal(data, &said.Object)
}

// watch reads so many events of a stream, or all until its end.
func (p *program) watch(ctx context.Context, asked request) (answer, error) {
	response, err := p.send(ctx, asked)
	if err != nil {
		return answer{}, err
	}
	defer response.Body.Close()
	said := answer{Code: response.StatusCode, ContentType: response.Header.Get("Content-Type")}
	frames := framer.NewLengthDelimitedFrameReader(response.Body)
	buffer := make([]byte, 4<<20)
	for len(said.Events) < asked.Events {
		if strings.HasPrefix(said.ContentType, "application/json") {
			decoder := json.NewDecoder(response.Body)
			for len(said.Events) < asked.Events {
				var next event
				if err := decoder.Decode(&next); err != nil {
					return said, err
				}
				said.Events = append(said.Events, next)
			}
			break
		}
		length, err := frames.Read(buffer)
		if err == io.EOF {
			break
		}
		if err != nil {
			return said, err
		}
		var next metav1.WatchEvent
		if err := next.Unmarshal(buffer[:length]); err != nil {
			return said, err
		}
		if again, err := next.Marshal(); err != nil || !bytes.Equal(again, buffer[:length]) {
			return said, fmt.Errorf("Kubernetes writes other bytes of an event: %v\n%x\n%x", err, again, buffer[:length])
		}
		object, err := decode(next.Object.Raw)
		if err != nil {
			return said, err
		}
		said.Events = append(said.Events, event{Type: next.Type, Object: object})
	}
	return said, nil
}

func (asked request) gvr() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: asked.Group, Version: asked.Version, Resource: asked.Resource}
}

// metadata does to an object what controllers do, the last of which is to delete it. It begins
// with a list in pages, and ends with a list.
func (p *program) metadata(ctx context.Context, asked request) (answer, error) {
	client, err := metadata.NewForConfigAndClient(metadata.ConfigFor(p.config), p.client)
	if err != nil {
		return answer{}, err
	}
	of := client.Resource(asked.gvr()).Namespace(asked.Namespace)
	said := answer{}
	options := metav1.ListOptions{Limit: 1}
	for {
		list, err := of.List(ctx, options)
		if err != nil {
			return said, err
		}
		for i := range list.Items {
			said.Objects = append(said.Objects, list.Items[i])
		}
		if options.Continue = list.Continue; options.Continue == "" {
			break
		}
	}
	object, err := of.Get(ctx, asked.Name, metav1.GetOptions{})
	if err != nil {
		return said, err
	}
	patch := []byte(`{"metadata":{"labels":{"patched":"true"}}}`)
	patched, err := of.Patch(ctx, asked.Name, types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		return said, err
	}
	said.Object = patched
	// Of another version it is refused.
	background := metav1.DeletePropagationBackground
	old := object.ResourceVersion
	refused := of.Delete(ctx, asked.Name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{ResourceVersion: &old}})
	if refused == nil || !strings.Contains(refused.Error(), "the ResourceVersion in the precondition") {
		return said, fmt.Errorf("a deletion of another version: %v", refused)
	}
	err = of.Delete(ctx, asked.Name, metav1.DeleteOptions{
		PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &object.UID},
	})
	if err != nil {
		return said, err
	}
	if err := of.DeleteCollection(ctx, metav1.DeleteOptions{DryRun: []string{"All"}}, metav1.ListOptions{}); err != nil {
		return said, err
	}
	said.Heard = p.recorder.take()
	return said, nil
}

// inform starts a metadata informer.
func (p *program) inform(asked request) (answer, error) {
	client, err := metadata.NewForConfigAndClient(metadata.ConfigFor(p.config), p.client)
	if err != nil {
		return answer{}, err
	}
	factory := metadatainformer.NewFilteredSharedInformerFactory(client, 0, asked.Namespace, nil)
	p.informer = factory.ForResource(asked.gvr()).Informer()
	note := func(kind string, object any) {
		p.mutex.Lock()
		defer p.mutex.Unlock()
		p.heard = append(p.heard, event{Type: kind, Object: object.(*metav1.PartialObjectMetadata).Name})
	}
	_, err = p.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { note("ADDED", object) },
		UpdateFunc: func(_, object any) { note("MODIFIED", object) },
		DeleteFunc: func(object any) { note("DELETED", object) },
	})
	if err != nil {
		return answer{}, err
	}
	factory.Start(context.Background().Done())
	synced, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if !cache.WaitForCacheSync(synced.Done(), p.informer.HasSynced) {
		return answer{}, fmt.Errorf("never in sync")
	}
	return answer{Heard: p.recorder.take()}, nil
}

// store is what the informer holds, and what it has heard.
func (p *program) store() answer {
	said := answer{}
	for _, object := range p.informer.GetStore().List() {
		said.Objects = append(said.Objects, object)
	}
	sort.Slice(said.Objects, func(i, j int) bool {
		name := func(k int) string { return said.Objects[k].(*metav1.PartialObjectMetadata).Name }
		return name(i) < name(j)
	})
	p.mutex.Lock()
	defer p.mutex.Unlock()
	said.Events = append(said.Events, p.heard...)
	return said
}

// scale sets replicas as typed clients do that are told to speak protobuf, and reads them with
// the client of autoscalers.
func (p *program) scale(ctx context.Context, asked request) (answer, error) {
	said := answer{}
	config := rest.CopyConfig(p.config)
	config.ContentType = media
	config.AcceptContentTypes = media
	config.APIPath = "/apis"
	version := asked.gvr().GroupVersion()
	config.GroupVersion = &version
	config.NegotiatedSerializer = serializers.NewCodecFactory(scheme).WithoutConversion()
	typed, err := rest.RESTClientForConfigAndClient(config, p.client)
	if err != nil {
		return said, err
	}
	in := func(verb *rest.Request) *rest.Request {
		return verb.Namespace(asked.Namespace).Resource(asked.Resource).Name(asked.Name).SubResource("scale")
	}
	read := &autoscalingv1.Scale{}
	if err := in(typed.Get()).Do(ctx).Into(read); err != nil {
		return said, err
	}
	read.Spec.Replicas = asked.Replicas
	if err := in(typed.Put()).Body(read).Do(ctx).Into(read); err != nil {
		return said, err
	}
	said.Objects = append(said.Objects, read)
	patch := fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, asked.Replicas+1)
	patched := &autoscalingv1.Scale{}
	if err := in(typed.Patch(types.MergePatchType)).Body(patch).Do(ctx).Into(patched); err != nil {
		return said, err
	}
	said.Objects = append(said.Objects, patched)

	config = rest.CopyConfig(p.config)
	config.AcceptContentTypes = media + ",application/json"
	config.NegotiatedSerializer = serializers.NewCodecFactory(scheme).WithoutConversion()
	config.GroupVersion = &schema.GroupVersion{}
	plain, err := rest.RESTClientForConfigAndClient(config, p.client)
	if err != nil {
		return said, err
	}
	found, err := discovery.NewDiscoveryClientForConfigAndClient(p.config, p.client)
	if err != nil {
		return said, err
	}
	heard := p.recorder.take()
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(found))
	scales := scale.New(plain, mapper, dynamic.LegacyAPIPathResolverFunc, scale.NewDiscoveryScaleKindResolver(found))
	last, err := scales.Scales(asked.Namespace).Get(ctx, asked.gvr().GroupResource(), asked.Name, metav1.GetOptions{})
	if err != nil {
		return said, err
	}
	said.Objects = append(said.Objects, last)
	said.Heard = append(heard, p.recorder.take()...)
	return said, nil
}

// discovery asks as a client that speaks protobuf.
func (p *program) discovery(asked request) (answer, error) {
	config := rest.CopyConfig(p.config)
	config.ContentType = media
	config.AcceptContentTypes = media + ",application/json"
	client, err := discovery.NewDiscoveryClientForConfigAndClient(config, p.client)
	if err != nil {
		return answer{}, err
	}
	list, err := client.ServerResourcesForGroupVersion(asked.Group + "/" + asked.Version)
	return answer{Object: list, Heard: p.recorder.take()}, err
}
