// Command argocd does what Argo CD's controller does with an application, by the library
// that it does it with: a cache of the whole cluster, differences, syncs. One JSON request
// comes in as a line on standard input, one JSON answer goes out as a line.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/argoproj/argo-cd/gitops-engine/pkg/cache"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/diff"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/engine"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/health"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/sync"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/utils/kube"
	"github.com/argoproj/argo-cd/gitops-engine/pkg/utils/tracing"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2/textlogger"
	luajson "layeh.com/gopher-json"
)

const (
	manager = "argocd-controller"
	// By which Argo CD knows what belongs to an application.
	mark = "argocd.argoproj.io/tracking-id"
)

type request struct {
	Do string `json:"do"`
	// A stream of YAML documents: the application as it should be.
	Objects string `json:"objects"`
	// Its name.
	Application string `json:"application"`
	// How it is compared: `client`, `structured` or `server`; all but the first also
	// apply on the server.
	Mode  string `json:"mode"`
	Prune bool   `json:"prune"`
	// How healthy our kinds are, as Argo CD is configured: Lua.
	Lua string `json:"lua"`
}

type answer struct {
	// Of a sync: what it says of each object, by `group/kind/namespace/name`.
	Results map[string]string `json:"results,omitempty"`
	// Of a diff: objects that differ, live and predicted; null is none.
	Differ map[string][2]json.RawMessage `json:"differ"`
	// Health of each live object, where Argo CD has a notion of it.
	Health map[string]string `json:"health,omitempty"`
	// Of the cache: how many objects of each `kind.group`.
	Cached map[string]int `json:"cached,omitempty"`
	Error  string         `json:"error,omitempty"`
}

type argo struct {
	config *rest.Config
	cache  cache.ClusterCache
	engine engine.GitOpsEngine
	dryRun *diff.K8sServerSideDryRunner
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "path of the kubeconfig")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err == nil {
		err = serve(config)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serve(config *rest.Config) error {
	config.UserAgent = "argocd"
	config.QPS, config.Burst = 50, 100
	log := textlogger.NewLogger(textlogger.NewConfig())
	clusterCache := cache.NewClusterCache(config, cache.SetLogr(log),
		cache.SetPopulateResourceInfoHandler(func(object *unstructured.Unstructured, _ bool) (any, bool) {
			application := object.GetAnnotations()[mark]
			return application, application != ""
		}))
	gitOps := engine.NewEngine(config, clusterCache, engine.WithLogr(log))
	stop, err := gitOps.Run()
	if err != nil {
		return err
	}
	defer stop()
	kubectl := &kube.KubectlCmd{Log: log, Tracer: tracing.NopTracer{}}
	applier, cleanup, err := kubectl.ManageServerSideDiffDryRuns(config)
	if err != nil {
		return err
	}
	defer cleanup()
	all := &argo{config, clusterCache, gitOps, diff.NewK8sServerSideDryRunner(applier)}
	input, output := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	input.Buffer(nil, 1<<20)
	for input.Scan() {
		var r request
		if err := json.Unmarshal(input.Bytes(), &r); err != nil {
			return err
		}
		var a answer
		if err := all.do(r, &a); err != nil {
			a.Error = err.Error()
		}
		if err := output.Encode(a); err != nil {
			return err
		}
	}
	return input.Err()
}

func (all *argo) do(r request, a *answer) error {
	target, err := kube.SplitYAML([]byte(r.Objects))
	if err != nil {
		return err
	}
	for _, object := range target {
		annotations := object.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[mark] = r.Application
		object.SetAnnotations(annotations)
	}
	belongs := func(resource *cache.Resource) bool { return resource.Info == r.Application }
	switch r.Do {
	case "cached":
		a.Cached = map[string]int{}
		for key := range all.cache.FindResources("") {
			a.Cached[key.Kind+"."+key.Group]++
		}
		for key := range all.cache.FindResources("default") {
			a.Cached[key.Kind+"."+key.Group]++
		}
		return nil
	case "sync":
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		results, err := all.engine.Sync(ctx, target, belongs, "revision", "default",
			sync.WithPrune(r.Prune), sync.WithServerSideApply(r.Mode != "client"),
			sync.WithServerSideApplyManager(manager), sync.WithManifestValidation(true))
		a.Results = map[string]string{}
		for _, result := range results {
			a.Results[result.ResourceKey.String()] = fmt.Sprintf("%s: %s", result.Status, result.Message)
		}
		return err
	case "diff":
		return all.diff(target, belongs, r, a)
	default:
		return fmt.Errorf("nothing is known of %q", r.Do)
	}
}

// diff compares the application with what the cache holds of it.
func (all *argo) diff(target []*unstructured.Unstructured, belongs func(*cache.Resource) bool, r request, a *answer) error {
	managed, err := all.cache.GetManagedLiveObjs(target, belongs)
	if err != nil {
		return err
	}
	both := sync.Reconcile(target, managed, "default", all.cache)
	list, err := diff.DiffArray(both.Target, both.Live,
		diff.WithManager(manager), diff.WithGVKParser(all.cache.GetGVKParser()),
		diff.WithStructuredMergeDiff(r.Mode == "structured"),
		diff.WithServerSideDiff(r.Mode == "server"), diff.WithServerSideDryRunner(all.dryRun))
	if err != nil {
		return err
	}
	a.Differ, a.Health = map[string][2]json.RawMessage{}, map[string]string{}
	for i, result := range list.Diffs {
		object := both.Live[i]
		if object == nil {
			object = both.Target[i]
		}
		key := kube.GetResourceKey(object)
		if result.Modified || both.Target[i] == nil {
			a.Differ[key.String()] = [2]json.RawMessage{result.NormalizedLive, result.PredictedLive}
		}
		if both.Live[i] == nil {
			continue
		}
		state, err := health.GetResourceHealth(both.Live[i], script(r.Lua))
		if err != nil {
			return err
		}
		if state != nil {
			a.Health[key.String()] = string(state.Status)
		}
	}
	return nil
}

// script is a health check in Lua, run as Argo CD runs those of its configuration.
type script string

// GetResourceHealth is asked before what the library knows itself.
func (s script) GetResourceHealth(object *unstructured.Unstructured) (*health.HealthStatus, error) {
	if s == "" || object.GroupVersionKind().Group != "steward.butlerlabs.dev" {
		return nil, nil
	}
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	lua.OpenBase(state)
	encoded, err := json.Marshal(object.Object)
	if err != nil {
		return nil, err
	}
	value, err := luajson.Decode(state, encoded)
	if err != nil {
		return nil, err
	}
	state.SetGlobal("obj", value)
	if err := state.DoString(string(s)); err != nil {
		return nil, err
	}
	table, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return nil, fmt.Errorf("the health check returns no table")
	}
	return &health.HealthStatus{
		Status:  health.HealthStatusCode(table.RawGetString("status").String()),
		Message: table.RawGetString("message").String(),
	}, nil
}
