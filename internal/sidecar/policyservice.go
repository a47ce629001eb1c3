// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/medirecord/medirecord/internal/med"
	pb "github.com/medirecord/medirecord/proto/coresdk/v1"
)

// maxInput bounds input_json, in bytes.
const maxInput = 64 << 10

// Evaluate answers a rule of the policy, data.medirecord.*. It is advice: it
// opens nothing and mints nothing. Who asks is what a verified token in the
// metadata (authorization: Bearer) says; whatever the input says under
// `context` is overwritten, and without a token nobody asks.
func (s *Service) Evaluate(ctx context.Context, in *pb.PolicyEvaluateRequest) (*pb.PolicyEvaluateResponse, error) {
	input := map[string]any{}
	if len(in.GetInputJson()) > maxInput {
		return nil, status.Error(codes.InvalidArgument, "input_json is larger than 64 KiB")
	}
	if in.GetInputJson() != "" && json.Unmarshal([]byte(in.GetInputJson()), &input) != nil {
		return nil, status.Error(codes.InvalidArgument, "input_json is not a JSON object")
	}
	if input == nil { // "null"
		input = map[string]any{}
	}
	asker, problem := s.asker(ctx)
	input["context"] = asker
	engine := s.cfg.Policy()
	got, err := engine.Evaluate(ctx, in.GetRule(), input)
	if err != nil {
		if k := med.KindOf(err); k == med.Invalid || k == med.NotFound {
			return nil, status.Error(codes.InvalidArgument, "only the rules data.medirecord.* of the policy in force can be evaluated")
		}
		return &pb.PolicyEvaluateResponse{Reason: "policy_error", Error: problem}, nil
	}
	out := &pb.PolicyEvaluateResponse{Error: problem}
	out.Result, _ = got.(bool)
	if whole, err := engine.Evaluate(ctx, "data.medirecord.decision", input); err == nil {
		out.ResourcePerm = permOf(whole, engine.Revision())
		out.Reason = out.GetResourcePerm().GetReasonCode()
	}
	return out, nil
}

// asker is the context of the policy's input: what a verified token says, or
// nobody.
func (s *Service) asker(ctx context.Context) (map[string]any, *pb.ProblemDetail) {
	nobody := map[string]any{"roles": []any{}, "mfa": string(med.MFANone), "grant": false}
	md, _ := metadata.FromIncomingContext(ctx)
	header := md.Get("authorization")
	if len(header) == 0 {
		return nobody, nil
	}
	raw, isBearer := strings.CutPrefix(header[0], "Bearer ")
	if len(header) > 1 || !isBearer {
		return nobody, unauthorized("bad_header")
	}
	c, err := s.claims(ctx, raw)
	if err != nil {
		return nobody, unauthorized(reasonOf(err))
	}
	roles := make([]any, len(c.Caller.Roles))
	for i, r := range c.Caller.Roles {
		roles[i] = string(r)
	}
	return map[string]any{"roles": roles, "mfa": string(c.MFAState(s.cfg.Now())), "grant": false, "tenant_id": string(c.Caller.Practice)}, nil
}

func permOf(v any, revision string) *pb.ResourcePermDecision {
	doc, _ := v.(map[string]any)
	allow, _ := doc["allow"].(bool)
	reason, _ := doc["reason_code"].(string)
	out := &pb.ResourcePermDecision{
		Decision: "deny", ReasonCode: reason, PolicyVersion: revision, SafeHttpStatus: 403,
		Obligations: &pb.ResourcePermObligations{Audit: true},
	}
	if !allow {
		return out
	}
	out.Decision, out.SafeHttpStatus = "allow", 200
	fields, _ := doc["fields"].(map[string]any)
	for _, f := range slices.Sorted(maps.Keys(fields)) {
		if fields[f] != "reveal" {
			out.Decision = "mask"
			out.Obligations.MaskFieldClasses = append(out.Obligations.MaskFieldClasses, f)
		}
	}
	if ob, ok := doc["obligations"].(map[string]any); ok {
		if n, ok := ob["max_rows"].(int); ok {
			out.Obligations.MaxRows = int64(n)
		}
	}
	return out
}

// WatchPolicyUpdates tells the revision in force now and each that follows.
// The text stays here: a decision is asked for, not made by the client.
func (s *Service) WatchPolicyUpdates(in *pb.WatchPolicyUpdatesRequest, out pb.PolicyService_WatchPolicyUpdatesServer) error {
	last := in.GetLastBundleVersion()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		if rev := s.cfg.Policy().Revision(); rev != last {
			last = rev
			if err := out.Send(&pb.PolicyBundleUpdate{BundleVersion: rev, UpdatedAt: s.cfg.Now().Unix()}); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-out.Context().Done():
			return nil
		}
	}
}
