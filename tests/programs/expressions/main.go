// What Kubernetes makes of expressions of admission: a line of JSON with an expression on
// standard input, a line with its value on standard output, or with what is wrong. It is the
// judge of `apiserver/src/policy/cel`.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
	"sort"
	"strings"

	"github.com/google/cel-go/cel"
	"github.com/google/cel-go/common/types"
	"github.com/google/cel-go/common/types/ref"
	"github.com/google/cel-go/common/types/traits"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/version"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	apiservercel "k8s.io/apiserver/pkg/cel"
	"k8s.io/apiserver/pkg/cel/environment"
	"k8s.io/apiserver/pkg/cel/library"
)

type answer struct {
	Value string `json:"value"`
	Error string `json:"error"`
	// Whether it was found wrong before it was evaluated.
	Uncompiled bool `json:"uncompiled"`
}

func quoted(text string) string {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(text); err != nil {
		panic(err)
	}
	return strings.TrimSpace(out.String())
}

func show(value ref.Val) string {
	switch value := value.(type) {
	case types.Null:
		return "null"
	case types.Bool:
		return fmt.Sprintf("%t", bool(value))
	case types.Int:
		return fmt.Sprintf("%d", int64(value))
	case types.Uint:
		return fmt.Sprintf("%du", uint64(value))
	case types.Double:
		return fmt.Sprintf("double %016x", math.Float64bits(float64(value)))
	case types.String:
		return quoted(string(value))
	case types.Bytes:
		return "bytes " + hex.EncodeToString(value)
	case *types.Optional:
		if !value.HasValue() {
			return "none"
		}
		return "some " + show(value.GetValue())
	case traits.Mapper:
		var entries []string
		for it := value.Iterator(); it.HasNext() == types.True; {
			key := it.Next()
			entries = append(entries, show(key)+": "+show(value.Get(key)))
		}
		sort.Strings(entries)
		return "{" + strings.Join(entries, ", ") + "}"
	case traits.Lister:
		var items []string
		for it := value.Iterator(); it.HasNext() == types.True; {
			items = append(items, show(it.Next()))
		}
		return "[" + strings.Join(items, ", ") + "]"
	case types.Timestamp:
		return "time " + string(value.ConvertToType(types.StringType).(types.String))
	case types.Duration:
		return fmt.Sprintf("duration %d", value.Nanoseconds())
	case apiservercel.URL:
		return "url " + value.URL.String()
	case ref.Type:
		return "type " + value.TypeName()
	}
	return "of " + value.Type().TypeName()
}

// Allows what begins with "get", and says what it was asked.
type judge struct{}

func (judge) Authorize(_ context.Context, asked authorizer.Attributes) (authorizer.Decision, string, error) {
	texts := []string{
		asked.GetUser().GetName(), strings.Join(asked.GetUser().GetGroups(), " "), asked.GetVerb(),
		asked.GetAPIGroup(), asked.GetResource(), asked.GetSubresource(), asked.GetNamespace(),
		asked.GetName(), asked.GetPath(),
	}
	reason := strings.Join(texts, "|")
	switch {
	case strings.HasPrefix(asked.GetVerb(), "get"):
		return authorizer.DecisionAllow, reason, nil
	case strings.HasPrefix(asked.GetVerb(), "fail"):
		return authorizer.DecisionNoOpinion, reason, errors.New("broken")
	}
	return authorizer.DecisionNoOpinion, reason, nil
}

// What the request is about.
type requested struct{}

func (requested) GetName() string      { return "one" }
func (requested) GetNamespace() string { return "n" }
func (requested) GetResource() schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "example.com", Version: "v1", Resource: "things"}
}
func (requested) GetSubresource() string { return "scale" }

// Numbers without a point are integers, as in Kubernetes.
func whole(value any) any {
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range value {
			value[key] = whole(inner)
		}
	case []any:
		for at, inner := range value {
			value[at] = whole(inner)
		}
	case float64:
		if value == math.Trunc(value) {
			return int64(value)
		}
	}
	return value
}

func evaluate(env *cel.Env, variables map[string]any, expression string) answer {
	ast, issues := env.Compile(expression)
	if issues.Err() != nil {
		return answer{Error: issues.Err().Error(), Uncompiled: true}
	}
	program, err := env.Program(ast)
	if err != nil {
		return answer{Error: err.Error(), Uncompiled: true}
	}
	value, _, err := program.Eval(variables)
	if err != nil {
		return answer{Error: err.Error()}
	}
	return answer{Value: show(value)}
}

func main() {
	extended, err := environment.MustBaseEnvSet(version.MajorMinor(1, 36)).Extend(environment.VersionedOptions{
		IntroducedVersion: version.MajorMinor(1, 0),
		EnvOptions: []cel.EnvOption{
			cel.Variable("object", cel.DynType),
			cel.Variable("authorizer", library.AuthorizerType),
			cel.Variable("authorizer.requestResource", library.ResourceCheckType),
			environment.UnversionedLib(library.JSONPatch),
		},
	})
	if err != nil {
		panic(err)
	}
	env, err := extended.Env(environment.StoredExpressions)
	if err != nil {
		panic(err)
	}
	in := bufio.NewReader(os.Stdin)
	first, err := in.ReadBytes('\n')
	if err != nil {
		panic(err)
	}
	var object any
	if err := json.Unmarshal(first, &object); err != nil {
		panic(err)
	}
	who := &user.DefaultInfo{Name: "anna", Groups: []string{"g", "h"}}
	variables := map[string]any{
		"object":     whole(object),
		"authorizer": library.NewAuthorizerVal(who, judge{}),
	}
	variables["authorizer.requestResource"] = library.NewResourceAuthorizerVal(who, judge{}, requested{})
	out := bufio.NewWriter(os.Stdout)
	for lines := bufio.NewScanner(in); lines.Scan(); {
		var expression string
		if err := json.Unmarshal(lines.Bytes(), &expression); err != nil {
			panic(err)
		}
		line, err := json.Marshal(evaluate(env, variables, expression))
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(out, "%s\n", line)
	}
	if err := out.Flush(); err != nil {
		panic(err)
	}
}
