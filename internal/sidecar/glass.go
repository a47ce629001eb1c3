// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"context"
	"slices"
	"strings"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/policy"
	"github.com/medirecord/medirecord/internal/token"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

// aboutGrants reports whether a question is about grants that were opened, and
// not about opening one.
func aboutGrants(q *pb.May) bool {
	return q.GetResourceType() == "break_glass" && slices.Contains([]string{"read", "end", "review"}, q.GetAction())
}

// mayGrants says what the caller may do with grants: with one that is named, or,
// reading, with all they may see. self is the decision on the caller's own,
// same_practice on those of others that are about their practice's patients.
func (s *Service) mayGrants(ctx context.Context, id uint64, c *token.Claims, q *pb.May) *pb.Answer {
	named := strings.ToLower(q.GetGrantId())
	if named != "" && !med.IsUUID(named) || named == "" && (q.GetAction() == "end" || q.GetAction() == "review") {
		return refuse(id, "invalid", "grant_id")
	}
	if q.GetPatientId() != "" { // of a grant the database knows whose it is: a context that names another patient is for nothing good
		return refuse(id, "invalid", "patient_id")
	}
	engine := s.cfg.Policy()
	mfa := c.MFAState(s.cfg.Now())
	said := &pb.Said{Decisions: map[string]*pb.Decision{}}
	for relation, of := range map[med.Relation]policy.Resource{
		med.RelationSelf:         {Relation: med.RelationOtherPractice, Authorship: string(med.AuthorshipOwn)},
		med.RelationSamePractice: {Relation: med.RelationSamePractice, Authorship: string(med.AuthorshipOther)},
	} {
		of.Type, of.Sensitivity, of.State = "break_glass", med.SensitivityNormal, policy.StateLive
		d, err := engine.Decide(ctx, policy.Input{Subject: policy.Subject{Roles: c.Caller.Roles, MFA: mfa}, Action: q.GetAction(), Resource: of})
		if err != nil {
			return s.unruled(ctx, id, engine)
		}
		said.Decisions[string(relation)] = decisionOf(d)
	}
	ruled, err := ruledBy(said)
	if err != nil {
		return s.unruled(ctx, id, engine)
	}
	ruling := &pb.Ruling{Said: ruled.said, Revision: engine.Revision()}
	if !ruled.allows {
		return &pb.Answer{Id: id, Answer: &pb.Answer_Ruling{Ruling: ruling}}
	}
	return s.mint(ctx, id, ruling, token.Context{
		Issuer: c.Caller.Issuer, Subject: c.Caller.Subject, Roles: words(c.Caller.Roles), Practice: c.Caller.Practice,
		Action: "break_glass." + q.GetAction(), Self: string(c.Caller.Patient), Grant: named,
		Admin:   mfa != med.MFANone && slices.Contains(c.Caller.Roles, med.RoleAdmin),
		Session: c.Caller.Session,
	}, q.GetEventId())
}
