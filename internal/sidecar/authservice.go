// SPDX-License-Identifier: Apache-2.0

package sidecar

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/policy"
	"github.com/medirecord/medirecord/internal/token"
	pb "github.com/medirecord/medirecord/proto/coresdk/v1"
)

// problem is the guide's 401, as the wire contract carries it.
func unauthorized(reason string) *pb.ProblemDetail {
	k := med.Unauthorized
	return &pb.ProblemDetail{
		Type: "https://medirecord.example/errors/" + k.Slug, Title: k.Title, Status: uint32(k.Status), Detail: k.Detail, //nolint:gosec // an HTTP status
		Extensions: map[string]string{"code": k.Slug, "hipaa_category": k.Category, "reason": reason},
	}
}

// ValidateToken says what a valid token says. The tenant of the request is
// context for logs; roles and practice come from the token only.
func (s *Service) ValidateToken(ctx context.Context, in *pb.ValidateTokenRequest) (*pb.ValidateTokenResponse, error) {
	c, err := s.claims(ctx, in.GetToken())
	if err != nil {
		return &pb.ValidateTokenResponse{Error: unauthorized(reasonOf(err))}, nil
	}
	if want := in.GetExpectedAudience(); want != "" && !slices.Contains(c.Audience, want) {
		return &pb.ValidateTokenResponse{Error: unauthorized(token.ReasonWrongAudience)}, nil
	}
	claims := maps.Clone(c.All)
	// What we make of the token, in the names clients know, over what it says.
	claims["iss"], claims["sub"] = c.Caller.Issuer, c.Caller.Subject
	claims["tenant_id"], claims["practice_id"] = string(c.Caller.Practice), string(c.Caller.Practice)
	claims["patient_id"] = string(c.Caller.Patient)
	claims["roles"] = strings.Join(words(c.Caller.Roles), ",")
	claims["sid"], claims["jti"] = c.Caller.Session, c.Caller.TokenID
	claims["mfa_verified"] = "false"
	if c.MFAState(s.cfg.Now()) != med.MFANone {
		claims["mfa_verified"] = "true"
	}
	for k, v := range claims {
		if v == "" {
			delete(claims, k)
		}
	}
	return &pb.ValidateTokenResponse{
		Valid: true, Subject: c.Caller.Subject, Roles: words(c.Caller.Roles), Claims: claims, ExpiresAt: c.Caller.ExpiresAt.Unix(),
	}, nil
}

// Authorize says whether the token's caller may do the action to the resource,
// "patient/<id>" or a type alone, as far as that can be said without the row:
// their own record, or one of their own practice. It is advice and mints
// nothing. Without a token it is no.
func (s *Service) Authorize(ctx context.Context, in *pb.AuthorizeRequest) (*pb.AuthorizeResponse, error) {
	if in.GetToken() == "" {
		return &pb.AuthorizeResponse{Reason: "no_token", Error: unauthorized("no_token")}, nil
	}
	c, err := s.claims(ctx, in.GetToken())
	if err != nil {
		return &pb.AuthorizeResponse{Reason: reasonOf(err), Error: unauthorized(reasonOf(err))}, nil
	}
	kind, id, _ := strings.Cut(in.GetResource(), "/")
	relation := med.RelationSamePractice
	if id != "" && id == string(c.Caller.Patient) {
		relation = med.RelationSelf
	}
	d, err := s.cfg.Policy().Decide(ctx, policy.Input{
		Subject:  policy.Subject{Roles: c.Caller.Roles, MFA: c.MFAState(s.cfg.Now())},
		Action:   in.GetAction(),
		Resource: policy.Resource{Type: kind, Relation: relation, Sensitivity: med.SensitivityNormal, State: policy.StateLive},
	})
	if err != nil {
		return &pb.AuthorizeResponse{Reason: "policy_error"}, nil //nolint:nilerr // an error is a no
	}
	return &pb.AuthorizeResponse{Allowed: d.Allow, Reason: d.Reason}, nil
}

// GetJwks returns the public keys in force.
func (s *Service) GetJwks(ctx context.Context, _ *pb.GetJwksRequest) (*pb.GetJwksResponse, error) {
	b, err := s.cfg.Verifier.JWKS(ctx)
	if err != nil {
		return nil, status.Error(codes.Unavailable, "no key set at hand")
	}
	return &pb.GetJwksResponse{JwksJson: string(b)}, nil
}

// RevokeToken refuses the token from now on, until it has expired. It says yes
// when that is on disk. A token that is not valid has nothing to revoke.
func (s *Service) RevokeToken(ctx context.Context, in *pb.RevokeTokenRequest) (*pb.RevokeTokenResponse, error) {
	c, err := s.claims(ctx, in.GetToken())
	if errors.Is(err, errRevoked) {
		return &pb.RevokeTokenResponse{Success: true}, nil
	}
	if err != nil {
		return &pb.RevokeTokenResponse{}, nil //nolint:nilerr // said by success
	}
	if err := s.state.revoke(c); err != nil {
		s.cfg.Log.ErrorContext(ctx, "revocation not kept", slog.Any("error", err))
		return nil, status.Error(codes.Unavailable, "the revocation could not be written down")
	}
	s.cfg.Log.InfoContext(ctx, "token revoked", slog.String("subject", c.Caller.Subject), slog.String("token", c.Caller.TokenID))
	return &pb.RevokeTokenResponse{Success: true}, nil
}

// IsRevoked says whether the token was revoked. A token we cannot read counts
// as revoked: the question is asked to let somebody in.
func (s *Service) IsRevoked(ctx context.Context, in *pb.IsRevokedRequest) (*pb.IsRevokedResponse, error) {
	_, err := s.claims(ctx, in.GetToken())
	return &pb.IsRevokedResponse{Revoked: err != nil}, nil
}
