// Command flux does what Flux's kustomize-controller does with a set of objects, by the
// library that it does it with. One JSON request comes in as a line on standard input,
// one JSON answer goes out as a line.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/pkg/ssa"
	ssaerrors "github.com/fluxcd/pkg/ssa/errors"
	"github.com/fluxcd/pkg/ssa/normalize"
	"github.com/fluxcd/pkg/ssa/utils"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

const (
	controller = "kustomize-controller"
	group      = "kustomize.toolkit.fluxcd.io"
)

type request struct {
	Do string `json:"do"`
	// A stream of YAML documents.
	Objects string `json:"objects"`
	// Whether objects whose immutable fields change are made anew.
	Force bool `json:"force"`
	// How long is waited, in milliseconds.
	Patience int `json:"patience"`
}

type answer struct {
	// What was done, by `kind/namespace/name`.
	Actions map[string]string `json:"actions,omitempty"`
	// The live and the merged object of each that differs, by the same.
	Drift map[string][2]any `json:"drift,omitempty"`
	Error string            `json:"error,omitempty"`
	// Whether Flux takes the error for one of an immutable field.
	Immutable bool `json:"immutable,omitempty"`
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
	config.UserAgent = "flux"
	config.QPS, config.Burst = 50, 300
	httpClient, err := rest.HTTPClientFor(config)
	if err != nil {
		return err
	}
	mapper, err := apiutil.NewDynamicRESTMapper(config, httpClient)
	if err != nil {
		return err
	}
	kube, err := client.New(config, client.Options{HTTPClient: httpClient, Mapper: mapper})
	if err != nil {
		return err
	}
	poller := polling.NewStatusPoller(kube, mapper, polling.Options{})
	manager := ssa.NewResourceManager(kube, poller, ssa.Owner{Field: controller, Group: group})
	input, output := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	input.Buffer(nil, 1<<20)
	for input.Scan() {
		var r request
		if err := json.Unmarshal(input.Bytes(), &r); err != nil {
			return err
		}
		var a answer
		if err := do(manager, r, &a); err != nil {
			a.Error, a.Immutable = err.Error(), ssaerrors.IsImmutableError(err)
		}
		if err := output.Encode(a); err != nil {
			return err
		}
	}
	return input.Err()
}

func do(manager *ssa.ResourceManager, r request, a *answer) error {
	objects, err := utils.ReadObjects(strings.NewReader(r.Objects))
	if err != nil {
		return err
	}
	if err := normalize.UnstructuredList(objects); err != nil {
		return err
	}
	manager.SetOwnerLabels(objects, "tenants", "flux-system")
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	wait := ssa.WaitOptions{
		Interval: 200 * time.Millisecond,
		Timeout:  time.Duration(r.Patience) * time.Millisecond,
	}
	switch r.Do {
	case "apply":
		changes, err := manager.ApplyAllStaged(ctx, objects, options(r.Force))
		a.note(changes)
		return err
	case "diff":
		return diff(ctx, manager, objects, a)
	case "wait":
		return manager.Wait(objects, wait)
	case "delete":
		changes, err := manager.DeleteAll(ctx, objects, ssa.DeleteOptions{
			PropagationPolicy: metav1.DeletePropagationBackground,
			Inclusions:        manager.GetOwnerLabels("tenants", "flux-system"),
		})
		a.note(changes)
		if err != nil {
			return err
		}
		return manager.WaitForSetTermination(changes, wait)
	default:
		return fmt.Errorf("nothing is known of %q", r.Do)
	}
}

// options are those of kustomize-controller: what kubectl owned becomes its own.
func options(force bool) ssa.ApplyOptions {
	options := ssa.DefaultApplyOptions()
	options.Force = force
	options.WaitInterval = 200 * time.Millisecond
	apply, update := metav1.ManagedFieldsOperationApply, metav1.ManagedFieldsOperationUpdate
	options.Cleanup = ssa.ApplyCleanupOptions{
		Annotations: []string{"kubectl.kubernetes.io/last-applied-configuration"},
		FieldManagers: []ssa.FieldManager{
			{Name: "kubectl", OperationType: apply},
			{Name: "kubectl", OperationType: update},
			{Name: "before-first-apply", OperationType: update},
			{Name: controller, OperationType: update},
		},
	}
	return options
}

func diff(ctx context.Context, manager *ssa.ResourceManager, objects []*unstructured.Unstructured, a *answer) error {
	a.Drift = map[string][2]any{}
	changes := ssa.NewChangeSet()
	for _, object := range objects {
		change, live, merged, err := manager.Diff(ctx, object, ssa.DefaultDiffOptions())
		if err != nil {
			return err
		}
		changes.Add(*change)
		if live != nil && merged != nil {
			a.Drift[change.Subject] = [2]any{live.Object["spec"], merged.Object["spec"]}
		}
	}
	a.note(changes)
	return nil
}

func (a *answer) note(changes *ssa.ChangeSet) {
	a.Actions = map[string]string{}
	if changes == nil {
		return
	}
	for _, change := range changes.Entries {
		a.Actions[change.Subject] = change.Action.String()
	}
}
