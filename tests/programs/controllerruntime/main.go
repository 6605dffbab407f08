// Command controllerruntime is a controller as one is written with controller-runtime: it
// gives each TenantControlPlane a finalizer, a label, a ConfigMap of its own and a status,
// and cleans up when it ends. It prints a JSON line when it leads, and ends with its
// standard input.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/builder"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	"sigs.k8s.io/controller-runtime/pkg/handler"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

var version = schema.GroupVersion{Group: "steward.butlerlabs.dev", Version: "v1alpha1"}

const (
	finalizer = "example.com/controller"
	index     = "spec.dataStore"
)

// Tenant is what this controller knows of a TenantControlPlane.
type Tenant struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              struct {
		DataStore string `json:"dataStore,omitempty"`
	} `json:"spec,omitempty"`
	Status struct {
		ObservedGeneration int64              `json:"observedGeneration,omitempty"`
		Conditions         []metav1.Condition `json:"conditions,omitempty"`
	} `json:"status,omitempty"`
}

// TenantList is a list of them.
type TenantList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Tenant `json:"items"`
}

// DeepCopyObject is what the cache asks for.
func (t *Tenant) DeepCopyObject() runtime.Object {
	other := *t
	t.ObjectMeta.DeepCopyInto(&other.ObjectMeta)
	other.Status.Conditions = append([]metav1.Condition(nil), t.Status.Conditions...)
	return &other
}

// DeepCopyObject is what the cache asks for.
func (l *TenantList) DeepCopyObject() runtime.Object {
	other := *l
	l.ListMeta.DeepCopyInto(&other.ListMeta)
	other.Items = make([]Tenant, len(l.Items))
	for i := range l.Items {
		other.Items[i] = *l.Items[i].DeepCopyObject().(*Tenant)
	}
	return &other
}

func main() {
	// controller-runtime has a flag of that name.
	flag.Parse()
	config, err := ctrl.GetConfig()
	if err == nil {
		err = run(config)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(config *rest.Config) error {
	ctrl.SetLogger(klog.Background())
	config.UserAgent = "controllerruntime"
	config.QPS, config.Burst = 50, 300
	scheme := runtime.NewScheme()
	if err := clientgoscheme.AddToScheme(scheme); err != nil {
		return err
	}
	scheme.AddKnownTypeWithName(version.WithKind("TenantControlPlane"), &Tenant{})
	scheme.AddKnownTypeWithName(version.WithKind("TenantControlPlaneList"), &TenantList{})
	metav1.AddToGroupVersion(scheme, version)
	lease, renew, retry := 4*time.Second, 3*time.Second, 500*time.Millisecond
	manager, err := ctrl.NewManager(config, ctrl.Options{
		Scheme: scheme, Metrics: metricsserver.Options{BindAddress: "0"},
		LeaderElection: true, LeaderElectionID: "controllerruntime", LeaderElectionNamespace: "default",
		LeaderElectionReleaseOnCancel: true, LeaseDuration: &lease, RenewDeadline: &renew, RetryPeriod: &retry,
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	err = manager.GetFieldIndexer().IndexField(ctx, &Tenant{}, index, func(object client.Object) []string {
		return []string{object.(*Tenant).Spec.DataStore}
	})
	if err != nil {
		return err
	}
	if err := watch(manager); err != nil {
		return err
	}
	go func() {
		<-manager.Elected()
		_ = json.NewEncoder(os.Stdout).Encode(map[string]string{"event": "leads"})
	}()
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	return manager.Start(ctx)
}

// watch has the kind in a typed cache, DataStores in one of metadata only.
func watch(manager ctrl.Manager) error {
	stores := &metav1.PartialObjectMetadata{}
	stores.SetGroupVersionKind(version.WithKind("DataStore"))
	all := handler.EnqueueRequestsFromMapFunc(func(ctx context.Context, store client.Object) []reconcile.Request {
		var tenants TenantList
		if err := manager.GetClient().List(ctx, &tenants, client.MatchingFields{index: store.GetName()}); err != nil {
			klog.ErrorS(err, "tenants of a DataStore")
		}
		requests := make([]reconcile.Request, len(tenants.Items))
		for i := range tenants.Items {
			requests[i].NamespacedName = client.ObjectKeyFromObject(&tenants.Items[i])
		}
		return requests
	})
	return ctrl.NewControllerManagedBy(manager).
		For(&Tenant{}).
		Owns(&corev1.ConfigMap{}).
		Watches(stores, all, builder.OnlyMetadata).
		Complete(&controller{manager.GetClient(), manager.GetScheme()})
}

type controller struct {
	client.Client
	scheme *runtime.Scheme
}

// Reconcile is called for each change of a tenant, its ConfigMap or its DataStore.
func (c *controller) Reconcile(ctx context.Context, request reconcile.Request) (reconcile.Result, error) {
	var tenant Tenant
	if err := c.Get(ctx, request.NamespacedName, &tenant); err != nil {
		return reconcile.Result{}, client.IgnoreNotFound(err)
	}
	before := tenant.DeepCopyObject().(*Tenant)
	if tenant.DeletionTimestamp != nil {
		if controllerutil.RemoveFinalizer(&tenant, finalizer) {
			return reconcile.Result{}, client.IgnoreNotFound(c.Patch(ctx, &tenant, client.MergeFrom(before)))
		}
		return reconcile.Result{}, nil
	}
	if controllerutil.AddFinalizer(&tenant, finalizer) {
		// The next notification goes on from here.
		lock := client.MergeFromWithOptimisticLock{}
		return reconcile.Result{}, c.Patch(ctx, &tenant, client.MergeFromWithOptions(before, lock))
	}
	if err := c.label(ctx, request.NamespacedName); err != nil {
		return reconcile.Result{}, fmt.Errorf("label: %w", err)
	}
	if err := c.note(ctx, &tenant); err != nil {
		return reconcile.Result{}, fmt.Errorf("ConfigMap: %w", err)
	}
	if err := c.report(ctx, &tenant); err != nil {
		return reconcile.Result{}, fmt.Errorf("status: %w", err)
	}
	return reconcile.Result{}, nil
}

// label applies a configuration that has nothing but a label.
func (c *controller) label(ctx context.Context, name types.NamespacedName) error {
	configuration := &unstructured.Unstructured{}
	configuration.SetGroupVersionKind(version.WithKind("TenantControlPlane"))
	configuration.SetName(name.Name)
	configuration.SetNamespace(name.Namespace)
	configuration.SetLabels(map[string]string{"example.com/labelled": "true"})
	return c.Apply(ctx, client.ApplyConfigurationFromUnstructured(configuration),
		client.FieldOwner("controllerruntime"))
}

// note keeps what is seen of the tenant and its DataStore in a ConfigMap that it owns.
func (c *controller) note(ctx context.Context, tenant *Tenant) error {
	store := &metav1.PartialObjectMetadata{}
	store.SetGroupVersionKind(version.WithKind("DataStore"))
	if err := c.Get(ctx, types.NamespacedName{Name: tenant.Spec.DataStore}, store); client.IgnoreNotFound(err) != nil {
		return err
	}
	note := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: tenant.Namespace, Name: tenant.Name}}
	_, err := controllerutil.CreateOrUpdate(ctx, c.Client, note, func() error {
		note.Data = map[string]string{
			"generation": strconv.FormatInt(tenant.Generation, 10),
			"dataStore":  store.Labels["colour"],
		}
		return controllerutil.SetControllerReference(tenant, note, c.scheme)
	})
	return err
}

// report patches one condition and replaces the status with another.
func (c *controller) report(ctx context.Context, tenant *Tenant) error {
	before := tenant.DeepCopyObject().(*Tenant)
	condition := metav1.Condition{
		Type: "Noted", Status: metav1.ConditionTrue, Reason: "Patched", ObservedGeneration: tenant.Generation,
	}
	if meta.SetStatusCondition(&tenant.Status.Conditions, condition) {
		return c.Status().Patch(ctx, tenant, client.MergeFrom(before))
	}
	if tenant.Status.ObservedGeneration != tenant.Generation {
		tenant.Status.ObservedGeneration = tenant.Generation
		return c.Status().Update(ctx, tenant)
	}
	return nil
}
