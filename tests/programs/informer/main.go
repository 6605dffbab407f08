// Command informer follows one resource of the cluster with client-go's
// informer, as controllers do, and prints what it hears: one JSON line for each
// notification, and one with the whole store whenever a line comes in on its
// standard input.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"sync"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
)

// state is what the test compares of an object.
type state struct {
	Key             string `json:"key"`
	UID             string `json:"uid"`
	ResourceVersion string `json:"resourceVersion"`
	Step            string `json:"step"`
}

type line struct {
	Event  string  `json:"event"`
	Object *state  `json:"object,omitempty"`
	Store  []state `json:"store,omitempty"`
}

var (
	mutex  sync.Mutex
	output = json.NewEncoder(os.Stdout)
)

func say(l line) {
	mutex.Lock()
	defer mutex.Unlock()
	if err := output.Encode(l); err != nil {
		os.Exit(1)
	}
}

func stateOf(object any) *state {
	o := object.(*unstructured.Unstructured)
	return &state{
		Key:             o.GetNamespace() + "/" + o.GetName(),
		UID:             string(o.GetUID()),
		ResourceVersion: o.GetResourceVersion(),
		Step:            o.GetAnnotations()["step"],
	}
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "path of the kubeconfig")
	group := flag.String("group", "", "group of the resource")
	version := flag.String("version", "", "version of the resource")
	resource := flag.String("resource", "", "plural name of the resource")
	flag.Parse()
	if err := run(*kubeconfig, schema.GroupVersionResource{Group: *group, Version: *version, Resource: *resource}); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(kubeconfig string, resource schema.GroupVersionResource) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	config.UserAgent = "informer"
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return err
	}
	factory := dynamicinformer.NewDynamicSharedInformerFactory(client, 0)
	informer := factory.ForResource(resource).Informer()
	_, err = informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) { say(line{Event: "add", Object: stateOf(object)}) },
		UpdateFunc: func(old, object any) {
			before, after := stateOf(old), stateOf(object)
			switch {
			case before.ResourceVersion == after.ResourceVersion:
				// Named again by a new list.
			case before.UID != after.UID:
				// Deleted and created between a watch and a new list.
				say(line{Event: "missing", Object: before})
				say(line{Event: "add", Object: after})
			default:
				say(line{Event: "update", Object: after})
			}
		},
		DeleteFunc: func(object any) {
			// A deletion that was only found missing in a new list.
			if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				say(line{Event: "missing", Object: stateOf(tombstone.Obj)})
				return
			}
			say(line{Event: "delete", Object: stateOf(object)})
		},
	})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	factory.Start(ctx.Done())
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return fmt.Errorf("never in sync")
	}
	say(line{Event: "synced"})
	input := bufio.NewScanner(os.Stdin)
	for input.Scan() {
		all := []state{}
		for _, object := range informer.GetStore().List() {
			all = append(all, *stateOf(object))
		}
		sort.Slice(all, func(i, j int) bool { return all[i].Key < all[j].Key })
		say(line{Event: "store", Store: all})
	}
	return input.Err()
}
