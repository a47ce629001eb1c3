// SPDX-License-Identifier: Apache-2.0

package coresdk_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/medirecord/medirecord/coresdk"
	"github.com/medirecord/medirecord/coresdk/coresdktest"
	coresdkv1 "github.com/medirecord/medirecord/proto/coresdk/v1"
)

func TestEvaluateDecides(t *testing.T) {
	t.Parallel()
	soon := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
	perm := func(decision string, o *coresdkv1.ResourcePermObligations) *coresdkv1.PolicyEvaluateResponse {
		return &coresdkv1.PolicyEvaluateResponse{Result: true, Reason: "r", ResourcePerm: &coresdkv1.ResourcePermDecision{Decision: decision, Obligations: o}}
	}
	for name, tc := range map[string]struct {
		answer *coresdkv1.PolicyEvaluateResponse
		want   coresdk.Decision
	}{
		"a plain yes": {
			&coresdkv1.PolicyEvaluateResponse{Result: true, Reason: "r"},
			coresdk.Decision{Allow: true, Reason: "r"},
		},
		"a yes with everything": {
			&coresdkv1.PolicyEvaluateResponse{Result: true, ResourcePerm: &coresdkv1.ResourcePermDecision{
				Decision: "mask", ReasonCode: "role", PolicyVersion: "7", DecisionId: "d-1",
				Obligations: &coresdkv1.ResourcePermObligations{Audit: true, MaskFieldClasses: []string{"ssn"}, MaxRows: 9, ExpiresAt: soon.Format(time.RFC3339)},
			}},
			coresdk.Decision{Allow: true, Reason: "role", Masked: []string{"ssn"}, MaxRows: 9, Audit: true, ExpiresAt: soon, PolicyVersion: "7", ID: "d-1"},
		},
		"a plain no": {
			&coresdkv1.PolicyEvaluateResponse{Reason: "other_practice"},
			coresdk.Decision{Reason: "other_practice"},
		},
		"a no whose details say allow": {
			&coresdkv1.PolicyEvaluateResponse{ResourcePerm: &coresdkv1.ResourcePermDecision{Decision: "allow"}},
			coresdk.Decision{},
		},
		"a yes on trial":               {&coresdkv1.PolicyEvaluateResponse{Result: true, DryRun: true}, coresdk.Decision{Reason: coresdk.ReasonDryRun}},
		"a yes whose details say deny": {perm("deny", nil), coresdk.Decision{Reason: coresdk.ReasonContradiction}},
		"a yes that wants approval":    {perm("require_approval", nil), coresdk.Decision{Reason: coresdk.ReasonNeedsApproval}},
		"a yes with approval in the small print": {
			perm("allow", &coresdkv1.ResourcePermObligations{RequiresApprovalType: "second_person"}),
			coresdk.Decision{Reason: coresdk.ReasonNeedsApproval},
		},
		"a word nobody knows":         {perm("ALLOW", nil), coresdk.Decision{Reason: coresdk.ReasonUnknownDecision}},
		"no word at all":              {perm("", nil), coresdk.Decision{Reason: coresdk.ReasonUnknownDecision}},
		"a mask of nothing":           {perm("mask", nil), coresdk.Decision{Reason: coresdk.ReasonMaskNothing}},
		"a yes that is over":          {perm("allow", &coresdkv1.ResourcePermObligations{ExpiresAt: "2020-01-01T00:00:00Z"}), coresdk.Decision{Reason: coresdk.ReasonExpired}},
		"a yes until nobody knows":    {perm("allow", &coresdkv1.ResourcePermObligations{ExpiresAt: "soon"}), coresdk.Decision{Reason: coresdk.ReasonExpired}},
		"fewer rows than none":        {perm("allow", &coresdkv1.ResourcePermObligations{MaxRows: -1}), coresdk.Decision{MaxRows: -1, Reason: coresdk.ReasonContradiction}},
		"the answer of an empty mind": {&coresdkv1.PolicyEvaluateResponse{}, coresdk.Decision{}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sdk := asking(t, coresdktest.Answers{Evaluate: func(_ context.Context, q *coresdkv1.PolicyEvaluateRequest) (*coresdkv1.PolicyEvaluateResponse, error) {
				if q.GetRule() != "data.medirecord.allow" || q.GetInputJson() != `{"action":"read"}` {
					return nil, status.Error(codes.FailedPrecondition, "not what was asked")
				}
				return tc.answer, nil
			}})
			got, err := sdk.Evaluate(t.Context(), "data.medirecord.allow", map[string]string{"action": "read"})
			noError(t, err)
			if diff := cmp.Diff(got, tc.want); diff != "" {
				t.Errorf("decision (-got +want):\n%s", diff)
			}
		})
	}
}

func TestEvaluateFails(t *testing.T) {
	t.Parallel()
	answering := func(a *coresdkv1.PolicyEvaluateResponse, err error) *coresdk.SDK {
		return asking(t, coresdktest.Answers{Evaluate: func(context.Context, *coresdkv1.PolicyEvaluateRequest) (*coresdkv1.PolicyEvaluateResponse, error) {
			return a, err
		}})
	}
	yes := &coresdkv1.PolicyEvaluateResponse{Result: true}
	for name, tc := range map[string]struct {
		sdk   *coresdk.SDK
		input any
		want  error
	}{
		"an error beside the yes":  {answering(&coresdkv1.PolicyEvaluateResponse{Result: true, Error: &coresdkv1.ProblemDetail{}}, nil), nil, coresdk.ErrUnauthorized},
		"no answer":                {answering(nil, status.Error(codes.Internal, "Alice")), nil, coresdk.ErrUnavailable},
		"an input beyond 1 MiB":    {answering(yes, nil), strings.Repeat("Alice", 1<<18), coresdk.ErrUnavailable},
		"an input that is no JSON": {answering(yes, nil), map[string]any{"Alice": math.NaN()}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d, err := tc.sdk.Evaluate(t.Context(), "data.medirecord.allow", tc.input)
			if err == nil || tc.want != nil && !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if !cmp.Equal(d, coresdk.Decision{}) {
				t.Errorf("a decision came with the error: %+v", d)
			}
			if err != nil && strings.Contains(err.Error(), "Alice") {
				t.Errorf("the error holds the input: %v", err)
			}
		})
	}
}
