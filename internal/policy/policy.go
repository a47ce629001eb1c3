// SPDX-License-Identifier: Apache-2.0

// Package policy decides: the Rego engine behind one function. It compiles a
// policy file, holds it against rules that no file can change and against the
// file's own cases, and answers who may see and write what. It never sees an
// id or a clinical value, does no I/O while deciding, and denies what it does
// not understand.
package policy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/medirecord/medirecord/internal/med"
)

// Engine is one compiled policy file. Make it with Load; it is safe for
// concurrent use.
type Engine struct {
	name     string
	revision string
	compiler *ast.Compiler
	decision rego.PreparedEvalQuery
	rules    []string
	queries  sync.Map // rule name -> rego.PreparedEvalQuery, at most one per rule
	cache    [cacheShards]shard
}

const (
	cacheShards = 16
	// shardLimit bounds the answers kept. Questions carry no ids, so a running
	// system asks a few hundred different ones.
	shardLimit = 2048
)

type shard struct {
	mu      sync.RWMutex
	answers map[facts]answer
}

type answer struct {
	decision med.Decision
}

// Revision names the policy text: the start of its SHA-256.
func (e *Engine) Revision() string { return e.revision }

// Decide answers the question. The maps and slices of the decision are shared
// between callers and must not be changed. An error means that there is no
// answer: the decision that comes with it denies.
//
// Answers are remembered: the question in normal form is all that the policy
// sees, and the policy is pure, so that a remembered answer is the answer.
func (e *Engine) Decide(ctx context.Context, in Input) (med.Decision, error) {
	f := in.normal()
	s := &e.cache[f.shard()]
	s.mu.RLock()
	a, ok := s.answers[f]
	s.mu.RUnlock()
	if ok {
		return a.decision, nil
	}
	ctx, cancel := context.WithTimeout(ctx, evalLimit)
	defer cancel()
	d, err := e.decide(ctx, f)
	if err != nil {
		return med.Decision{Reason: "error"}, fmt.Errorf("deciding %s: %w", f, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.answers) >= shardLimit {
		clear(s.answers)
	}
	s.answers[f] = answer{d}
	return d, nil
}

func (f facts) shard() uint {
	return (uint(f.roles)*31 + uint(f.question)*7 + uint(f.kind)*5 + uint(f.relation)) % cacheShards
}

// decide evaluates the question and lets the compiled rules win.
func (e *Engine) decide(ctx context.Context, f facts) (med.Decision, error) {
	d, err := e.evaluate(ctx, f)
	if err != nil {
		return med.Decision{}, err
	}
	if words, bad := broken(f, &d); bad {
		slog.ErrorContext(ctx, "policy file allowed what a compiled rule forbids; denied",
			slog.String("rule", words), slog.String("question", f.String()), slog.String("revision", e.revision))
		return med.Decision{Reason: reasonInvariant}, nil
	}
	return d, nil
}

// evaluate returns what the policy file says.
func (e *Engine) evaluate(ctx context.Context, f facts) (med.Decision, error) {
	out, err := run(ctx, e.decision, f)
	if err != nil {
		return med.Decision{}, err
	}
	return decode(out)
}

var errUndefined = errors.New("the policy file gives no answer")

func run(ctx context.Context, q rego.PreparedEvalQuery, f facts) (any, error) {
	input, err := ast.InterfaceToValue(f.document())
	if err != nil {
		return nil, fmt.Errorf("building the input: %w", err)
	}
	results, err := q.Eval(ctx, rego.EvalParsedInput(input))
	if err != nil {
		return nil, fmt.Errorf("evaluating: %w", err)
	}
	if len(results) != 1 || len(results[0].Expressions) != 1 {
		return nil, errUndefined
	}
	return results[0].Expressions[0].Value, nil
}
