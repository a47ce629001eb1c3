// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/medirecord/medirecord/internal/med"
)

func TestEvaluate(t *testing.T) {
	t.Parallel()
	e := compiled(t, defaultSource(t))
	question := func() map[string]any {
		return map[string]any{
			"action":   "read",
			"resource": map[string]any{"type": "patient", "relation": "same_practice", "sensitivity": "normal"},
			"context":  map[string]any{"roles": []any{"nurse"}, "mfa": "done"},
		}
	}
	t.Run("a part of the decision", func(t *testing.T) {
		t.Parallel()
		out, err := e.Evaluate(t.Context(), "data.medirecord.allow", question())
		if err != nil || out != true {
			t.Errorf("got %v, error %v", out, err)
		}
	})
	t.Run("the decision has a revision", func(t *testing.T) {
		t.Parallel()
		out, err := e.Evaluate(t.Context(), "data.medirecord.decision", question())
		if err != nil {
			t.Fatal(err)
		}
		m := out.(map[string]any)
		if m["revision"] != e.Revision() || m["fields"].(map[string]any)["ssn"] != "hide" {
			t.Errorf("got %v", m)
		}
	})
	t.Run("another rule of the file", func(t *testing.T) {
		t.Parallel()
		out, err := e.Evaluate(t.Context(), "data.medirecord.acting", question())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]any{"nurse"}, out); diff != "" {
			t.Error(diff)
		}
	})
	t.Run("roles come from the context only", func(t *testing.T) {
		t.Parallel()
		in := question()
		delete(in, "context")
		in["subject"] = map[string]any{"roles": []any{"clinician"}, "mfa": "fresh", "grant": true}
		in["roles"] = []any{"admin"}
		for _, rule := range []string{"data.medirecord.allow", "data.medirecord.acting"} {
			out, err := e.Evaluate(t.Context(), rule, in)
			if err != nil {
				t.Fatal(err)
			}
			if list, ok := out.([]any); out != false && !(ok && len(list) == 0) {
				t.Errorf("%s: got %v", rule, out)
			}
		}
	})
	t.Run("a document of the wrong shape is denied", func(t *testing.T) {
		t.Parallel()
		for _, in := range []map[string]any{nil, {"resource": "patient", "context": []any{"admin"}}, {"context": map[string]any{"roles": "admin"}, "action": 7}} {
			if out, err := e.Evaluate(t.Context(), "data.medirecord.allow", in); err != nil || out != false {
				t.Errorf("%v: got %v, error %v", in, out, err)
			}
		}
	})
	refused := map[string]*med.ErrorKind{
		"data.medirecord": med.Invalid, "data.medirecord.": med.Invalid, "data.other.allow": med.Invalid, "allow": med.Invalid, "": med.Invalid,
		"data.medirecord.allow; http.send({})": med.Invalid, "data.medirecord.permits.patient": med.Invalid, "data.medirecord[x]": med.Invalid,
		"data.medirecord.verdict": med.NotFound, "data.medirecord.nothing": med.NotFound,
	}
	for rule, kind := range refused {
		t.Run("refused: "+rule, func(t *testing.T) {
			t.Parallel()
			if _, err := e.Evaluate(t.Context(), rule, question()); !errors.Is(err, kind.New("")) {
				t.Errorf("error %v, want %s", err, kind.Slug)
			}
		})
	}
}
