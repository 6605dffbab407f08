// What Kubernetes makes of updates and applied configurations: a line of JSON for each
// operation on standard input, a line with the result on standard output. The first line
// has the OpenAPI schemas. It is the judge of `apiserver/src/managed`.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/yaml"
)

type operation struct {
	Op          string          `json:"op"`
	APIVersion  string          `json:"apiVersion"`
	Kind        string          `json:"kind"`
	Subresource string          `json:"subresource"`
	Ignored     []string        `json:"ignored"`
	Live        json.RawMessage `json:"live"`
	New         json.RawMessage `json:"new"`
	Manager     string          `json:"manager"`
	Force       bool            `json:"force"`
	Now         metav1.Time     `json:"now"`
	Path        []string        `json:"path"`
}

type cause struct {
	Message string `json:"message"`
	Field   string `json:"field"`
}

type result struct {
	Object interface{} `json:"object,omitempty"`
	Error  string      `json:"error,omitempty"`
	Code   int32       `json:"code,omitempty"`
	Causes []cause     `json:"causes,omitempty"`
}

// One version, without conversion or defaults: what is left is who owns what.
type world struct{ version schema.GroupVersion }

func (w world) Convert(in, out, context interface{}) error { return errors.New("not asked for") }

func (w world) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	kind := in.GetObjectKind().GroupVersionKind()
	if target != runtime.GroupVersioner(kind.GroupVersion()) {
		return nil, runtime.NewNotRegisteredErrForTarget("world", nil, target)
	}
	return in, nil
}

func (w world) ConvertFieldLabel(gvk schema.GroupVersionKind, label, value string) (string, string, error) {
	return label, value, nil
}

func (w world) Default(in runtime.Object) {}

func (w world) New(kind schema.GroupVersionKind) (runtime.Object, error) {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(kind)
	return object, nil
}

type judge struct {
	types    managedfields.TypeConverter
	managers map[string]*managedfields.FieldManager
}

func (j *judge) manager(op *operation) (*managedfields.FieldManager, schema.GroupVersionKind, error) {
	version, err := schema.ParseGroupVersion(op.APIVersion)
	if err != nil {
		return nil, schema.GroupVersionKind{}, err
	}
	kind := version.WithKind(op.Kind)
	key := fmt.Sprint(kind, op.Subresource, op.Ignored)
	if known, ok := j.managers[key]; ok {
		return known, kind, nil
	}
	ignored := fieldpath.NewSet()
	for _, name := range op.Ignored {
		ignored.Insert(fieldpath.MakePathOrDie(name))
	}
	reset := map[fieldpath.APIVersion]*fieldpath.Set{fieldpath.APIVersion(op.APIVersion): ignored}
	w := world{version}
	made, err := managedfields.NewDefaultCRDFieldManager(
		j.types, w, w, w, kind, version, op.Subresource, fieldpath.NewExcludeFilterSetMap(reset))
	if err != nil {
		return nil, kind, err
	}
	j.managers[key] = made
	return made, kind, nil
}

func object(raw json.RawMessage, kind schema.GroupVersionKind) (*unstructured.Unstructured, error) {
	object := &unstructured.Unstructured{Object: map[string]interface{}{}}
	if len(raw) == 0 || string(raw) == "null" {
		object.SetGroupVersionKind(kind)
		return object, nil
	}
	return object, utiljson.Unmarshal(raw, &object.Object)
}

func (j *judge) run(op *operation) (runtime.Object, error) {
	if op.Op == "to_scale" || op.Op == "to_object" {
		return scale(op)
	}
	manager, kind, err := j.manager(op)
	if err != nil {
		return nil, err
	}
	live, err := object(op.Live, kind)
	if err != nil {
		return nil, err
	}
	if op.Op == "update" {
		changed, err := object(op.New, kind)
		if err != nil {
			return nil, err
		}
		return manager.Update(live, changed, op.Manager)
	}
	config := &unstructured.Unstructured{Object: map[string]interface{}{}}
	if err := yaml.Unmarshal(op.New, &config.Object); err != nil {
		return nil, err
	}
	return manager.Apply(live, config, op.Manager, op.Force)
}

// The managers of an object as those of its Scale, and those of the Scale as those of the
// object.
func scale(op *operation) (runtime.Object, error) {
	version, err := schema.ParseGroupVersion(op.APIVersion)
	if err != nil {
		return nil, err
	}
	kind := version.WithKind(op.Kind)
	live, err := object(op.Live, kind)
	if err != nil {
		return nil, err
	}
	path := fieldpath.Path{}
	for _, name := range op.Path {
		path = append(path, fieldpath.FieldNameElement(name))
	}
	handler := managedfields.NewScaleHandler(live.GetManagedFields(), version,
		managedfields.ResourcePathMappings{op.APIVersion: path})
	var entries []metav1.ManagedFieldsEntry
	if op.Op == "to_scale" {
		entries, err = handler.ToSubresource()
	} else {
		var scale *unstructured.Unstructured
		if scale, err = object(op.New, kind); err == nil {
			entries, err = handler.ToParent(scale.GetManagedFields())
		}
	}
	if err != nil {
		return nil, err
	}
	live.SetManagedFields(entries)
	return live, nil
}

// The clock of the library is the machine's: what it set becomes the time of the operation.
func settle(made runtime.Object, began, now metav1.Time) {
	object, ok := made.(*unstructured.Unstructured)
	if !ok {
		return
	}
	entries := object.GetManagedFields()
	for i := range entries {
		if entries[i].Time != nil && !entries[i].Time.Before(&began) {
			entries[i].Time = &now
		}
	}
	if entries != nil {
		object.SetManagedFields(entries)
	}
}

func (j *judge) answer(line []byte) result {
	op := &operation{}
	if err := json.Unmarshal(line, op); err != nil {
		return result{Error: "operation: " + err.Error()}
	}
	began := metav1.NewTime(time.Now().Add(-time.Minute))
	made, err := j.run(op)
	if err != nil {
		answer := result{Error: err.Error()}
		var status apierrors.APIStatus
		if errors.As(err, &status) {
			answer.Code = status.Status().Code
			if details := status.Status().Details; details != nil {
				for _, one := range details.Causes {
					answer.Causes = append(answer.Causes, cause{one.Message, one.Field})
				}
			}
		}
		return answer
	}
	settle(made, began, op.Now)
	return result{Object: made.(*unstructured.Unstructured).Object}
}

func main() {
	in := bufio.NewReaderSize(os.Stdin, 1<<20)
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	first, err := in.ReadBytes('\n')
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	schemas := map[string]*spec.Schema{}
	if err := json.Unmarshal([]byte(strings.ReplaceAll(string(first), "#/components/schemas/", "#/definitions/")), &schemas); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	types, err := managedfields.NewTypeConverter(schemas, false)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	j := &judge{types, map[string]*managedfields.FieldManager{}}
	for {
		line, err := in.ReadBytes('\n')
		if len(line) > 0 {
			made, err := json.Marshal(j.answer(line))
			if err != nil {
				made, _ = json.Marshal(result{Error: "answer: " + err.Error()})
			}
			out.Write(append(made, '\n'))
			if in.Buffered() == 0 {
				out.Flush()
			}
		}
		if err != nil {
			out.Flush()
			return
		}
	}
}
