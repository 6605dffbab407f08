// Command konnectivity links both ends of the tunnel from an API server to its
// nodes into one program, and a webhook that is reached through it. The base name
// of argv[0] chooses among them.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/klog/v2"
	agent "sigs.k8s.io/apiserver-network-proxy/cmd/agent/app"
	agentoptions "sigs.k8s.io/apiserver-network-proxy/cmd/agent/app/options"
	server "sigs.k8s.io/apiserver-network-proxy/cmd/server/app"
	serveroptions "sigs.k8s.io/apiserver-network-proxy/cmd/server/app/options"
	"sigs.k8s.io/apiserver-network-proxy/pkg/util"
)

// webhook refuses what has the label "refused". Its certificate is in /tls.
func webhook(answer http.ResponseWriter, question *http.Request) {
	var review struct {
		Request struct {
			UID    string
			Object struct {
				Metadata struct{ Labels map[string]string }
			}
		}
	}
	if err := json.NewDecoder(question.Body).Decode(&review); err != nil {
		http.Error(answer, err.Error(), http.StatusBadRequest)
		return
	}
	_, refused := review.Request.Object.Metadata.Labels["refused"]
	_ = json.NewEncoder(answer).Encode(map[string]any{
		"apiVersion": "admission.k8s.io/v1",
		"kind":       "AdmissionReview",
		"response":   map[string]any{"uid": review.Request.UID, "allowed": !refused},
	})
}

func main() {
	if filepath.Base(os.Args[0]) == "webhook" {
		handler := http.HandlerFunc(webhook)
		log.Fatal(http.ListenAndServeTLS(":8443", "/tls/tls.crt", "/tls/tls.key", handler))
	}
	var command *cobra.Command
	var own *pflag.FlagSet
	if filepath.Base(os.Args[0]) == "proxy-agent" {
		options := agentoptions.NewGrpcProxyAgentOptions()
		command, own = agent.NewAgentCommand(&agent.Agent{}, options), options.Flags()
	} else {
		options := serveroptions.NewProxyRunOptions()
		command, own = server.NewProxyCommand(&server.Proxy{}, options), options.Flags()
	}
	flags := command.Flags()
	flags.AddFlagSet(own)
	// As their own main functions do.
	logs := flag.NewFlagSet(os.Args[0], flag.ExitOnError)
	klog.InitFlags(logs)
	if err := logs.Set("v", "4"); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	logs.VisitAll(func(one *flag.Flag) {
		one.Name = util.Normalize(one.Name)
		flags.AddGoFlag(one)
	})
	if err := command.Execute(); err != nil {
		klog.Errorf("error: %v\n", err)
		klog.Flush()
		os.Exit(1)
	}
}
