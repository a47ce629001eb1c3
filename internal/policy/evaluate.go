// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"context"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/medirecord/medirecord/internal/med"
)

// Evaluate answers a rule of the policy file by name, as data.medirecord.allow,
// for the PolicyService of coresdk.v1. It is advice and opens nothing.
//
// Who asks is read from input.context (roles, mfa, grant, reason_given) and from nowhere
// else: the caller of Evaluate must have overwritten it with what the verified
// token says. input.action and input.resource are the question. The rule sees
// them in normal form, so that what it does not know is closed; the parts of
// the decision are those of Decide.
//
// It reports Invalid for a rule that is not data.medirecord.<name>, and
// NotFound for one that the file does not have.
func (e *Engine) Evaluate(ctx context.Context, rule string, input map[string]any) (any, error) {
	name, ok := strings.CutPrefix(rule, packageName+".")
	if !ok || !isCode(name) {
		return nil, med.Invalid.New("Only rules data.medirecord.<name> can be evaluated.")
	}
	if !slices.Contains(e.rules, name) {
		return nil, med.NotFound.New("The policy has no such rule.")
	}
	in := inputOf(input)
	d, err := e.Decide(ctx, in)
	if err != nil {
		return nil, err
	}
	whole := e.documentOf(&d)
	if name == "decision" {
		return whole, nil
	}
	if part, ok := whole[name]; ok {
		return part, nil
	}
	ctx, cancel := context.WithTimeout(ctx, evalLimit)
	defer cancel()
	query, err := e.query(ctx, name)
	if err != nil {
		return nil, err
	}
	return run(ctx, query, in.normal())
}

// query prepares each rule once.
func (e *Engine) query(ctx context.Context, name string) (rego.PreparedEvalQuery, error) {
	if q, ok := e.queries.Load(name); ok {
		return q.(rego.PreparedEvalQuery), nil
	}
	q, err := prepare(ctx, e.compiler, packageName+"."+name)
	if err != nil {
		return rego.PreparedEvalQuery{}, err
	}
	e.queries.Store(name, q)
	return q, nil
}

// documentOf is the decision as the policy file writes it, with its revision.
func (e *Engine) documentOf(d *med.Decision) map[string]any {
	fields, write, notify := map[string]any{}, map[string]any{}, []any{}
	for f, show := range d.View {
		fields[string(f)] = show.String()
	}
	for f := range d.Write {
		write[string(f)] = true
	}
	for _, who := range d.Notify {
		notify = append(notify, who)
	}
	return map[string]any{
		"allow": d.Allow, "reason_code": d.Reason, "fields": fields, "write": write,
		"obligations": map[string]any{"notify": notify, "max_rows": d.MaxRows},
		"revision":    e.revision,
	}
}

// inputOf reads a loose document. What is missing or has the wrong type is not
// said.
func inputOf(m map[string]any) Input {
	who, what := object(m, "context"), object(m, "resource")
	in := Input{
		Subject: Subject{MFA: med.MFA(text(who, "mfa"))},
		Action:  text(m, "action"),
		Resource: Resource{
			Type:        text(what, "type"),
			Kind:        med.Kind(text(what, "kind")),
			Relation:    med.Relation(text(what, "relation")),
			Sensitivity: med.Sensitivity(text(what, "sensitivity")),
			State:       text(what, "state"),
			Authorship:  text(what, "authorship"),
		},
	}
	in.Subject.Grant, _ = who["grant"].(bool)
	in.Subject.ReasonGiven, _ = who["reason_given"].(bool)
	in.Resource.Treating, _ = what["treating"].(bool)
	switch roles := who["roles"].(type) {
	case []string:
		for _, r := range roles {
			in.Subject.Roles = append(in.Subject.Roles, med.Role(r))
		}
	case []med.Role:
		in.Subject.Roles = roles
	case []any:
		for _, r := range roles {
			if word, ok := r.(string); ok {
				in.Subject.Roles = append(in.Subject.Roles, med.Role(word))
			}
		}
	}
	return in
}

func object(m map[string]any, key string) map[string]any {
	o, _ := m[key].(map[string]any)
	return o
}

func text(m map[string]any, key string) string {
	s, _ := m[key].(string)
	return s
}
