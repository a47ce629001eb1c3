// SPDX-License-Identifier: Apache-2.0

package coresdk

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	coresdkv1 "github.com/medirecord/medirecord/proto/coresdk/v1"
)

// Decision is what a policy rule says. The zero value denies.
type Decision struct {
	Allow         bool
	Reason        string    // a code for logs
	Masked        []string  // field classes that must be masked
	MaxRows       int64     // 0: no limit
	Audit         bool      // the use must be recorded
	ExpiresAt     time.Time // zero: with the request
	PolicyVersion string
	ID            string // of the decision, to quote
}

// Reasons of Decisions that are denied here and not by the policy.
const (
	ReasonDryRun          = "dry_run"            // the rule is on trial: its yes does not count
	ReasonContradiction   = "contradiction"      // the result says yes, the details do not
	ReasonUnknownDecision = "unknown_decision"   // a word this SDK does not know
	ReasonNeedsApproval   = "require_approval"   // somebody else must say yes first
	ReasonExpired         = "decision_expired"   // the yes is over
	ReasonMaskNothing     = "mask_names_nothing" // told to mask, not told what
)

// Evaluate returns what the rule, such as data.medirecord.allow, says of the
// input, which is written as JSON. Allow is true only if the sidecar's result
// is a yes that counts, that is not contradicted by its details, and whose
// conditions this Decision can carry.
//
// It reports ErrUnauthorized when the sidecar answered with an error,
// ErrUnavailable when it did not answer, and another error when the input
// cannot be written as JSON. With any error the Decision denies.
func (s *SDK) Evaluate(ctx context.Context, rule string, input any) (Decision, error) {
	if !s.usable() {
		return Decision{}, fmt.Errorf("%w: this SDK was not made by New or FromEnv", ErrUnavailable)
	}
	text, err := json.Marshal(input)
	if err != nil {
		// The cause would quote the input, which may be about a patient.
		return Decision{}, fmt.Errorf("coresdk: a policy input of type %T cannot be written as JSON", input)
	}
	answer, err := ask(ctx, s, "Evaluate", s.policy.Evaluate, &coresdkv1.PolicyEvaluateRequest{
		Rule: rule, InputJson: string(text), Tenant: s.tenant, Metadata: s.request,
	})
	if err != nil {
		return Decision{}, err
	}
	if answer.GetError() != nil {
		return Decision{}, fmt.Errorf("%w: Evaluate answered with an error", ErrUnauthorized)
	}
	return s.decision(answer), nil
}

func (s *SDK) decision(a *coresdkv1.PolicyEvaluateResponse) Decision {
	perm := a.GetResourcePerm()
	due := perm.GetObligations()
	d := Decision{
		Reason: a.GetReason(), Masked: due.GetMaskFieldClasses(), MaxRows: due.GetMaxRows(), Audit: due.GetAudit(),
		PolicyVersion: perm.GetPolicyVersion(), ID: perm.GetDecisionId(),
	}
	if code := perm.GetReasonCode(); code != "" {
		d.Reason = code
	}
	if !a.GetResult() {
		return d
	}
	if objection := s.objection(a, &d); objection != "" {
		d.Reason = objection
		return d
	}
	d.Allow = true
	return d
}

// objection says why a result of true is no yes, or "" when it is one. It
// fills in the expiry, which it has to read.
func (s *SDK) objection(a *coresdkv1.PolicyEvaluateResponse, d *Decision) string {
	perm := a.GetResourcePerm()
	due := perm.GetObligations()
	if a.GetDryRun() {
		return ReasonDryRun
	}
	if perm == nil {
		return ""
	}
	switch perm.GetDecision() {
	case "allow":
	case "mask":
		if len(d.Masked) == 0 {
			return ReasonMaskNothing
		}
	case "require_approval":
		return ReasonNeedsApproval
	case "deny":
		return ReasonContradiction
	default:
		return ReasonUnknownDecision
	}
	if due.GetRequiresApprovalType() != "" {
		return ReasonNeedsApproval
	}
	if d.MaxRows < 0 {
		return ReasonContradiction
	}
	return s.expiry(due.GetExpiresAt(), d)
}

func (s *SDK) expiry(at string, d *Decision) string {
	if at == "" {
		return ""
	}
	t, err := time.Parse(time.RFC3339, at)
	if err != nil || !s.now().Before(t) {
		return ReasonExpired
	}
	d.ExpiresAt = t.UTC()
	return ""
}
