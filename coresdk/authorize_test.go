// SPDX-License-Identifier: Apache-2.0

package coresdk_test

import (
	"context"
	"errors"
	"fmt"
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

func TestAuthorizeReturnsTheClaimsOfACleanYes(t *testing.T) {
	t.Parallel()
	answer := yes()
	answer.Claims["patient_id"] = "p-001"
	got, err := asking(t, saying(answer)).Authorize(t.Context(), token)
	noError(t, err)
	want := &coresdk.Claims{
		Subject: "clinician-1", Issuer: "https://id.example", TenantID: "practice-1", Roles: []string{"clinician"},
		PatientID: "p-001", MFA: true, ExpiresAt: time.Unix(answer.GetExpiresAt(), 0).UTC(), All: answer.GetClaims(),
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("claims (-got +want):\n%s", diff)
	}
}

func TestAuthorizeReadsClaims(t *testing.T) {
	t.Parallel()
	with := func(name, value string) *coresdk.Claims {
		a := yes()
		delete(a.Claims, "practice_id")
		delete(a.Claims, "mfa_verified")
		a.Claims[name] = value
		c, err := asking(t, saying(a)).Authorize(t.Context(), token)
		noError(t, err)
		return c
	}
	if got := with("tenant_id", "practice-2").TenantID; got != "practice-2" {
		t.Errorf("tenant_id gives the practice %q", got)
	}
	if got := with("x", "y"); got.TenantID != "" || got.MFA || got.PatientID != "" {
		t.Errorf("a token that says nothing has tenant %q, MFA %v, patient %q", got.TenantID, got.MFA, got.PatientID)
	}
	for _, word := range []string{"false", "TRUE", "1", "yes", ""} {
		if with("mfa_verified", word).MFA {
			t.Errorf("mfa_verified %q counts as MFA", word)
		}
	}
}

func TestAuthorizeDeniesWhatIsNotACleanYes(t *testing.T) {
	t.Parallel()
	but := func(change func(*coresdkv1.ValidateTokenResponse)) *coresdkv1.ValidateTokenResponse {
		a := yes()
		change(a)
		return a
	}
	for name, answer := range map[string]*coresdkv1.ValidateTokenResponse{
		"invalid, with nothing else":        {},
		"invalid, with claims all the same": but(func(a *coresdkv1.ValidateTokenResponse) { a.Valid = false }),
		"invalid, with an error":            {Error: &coresdkv1.ProblemDetail{Status: 401, Detail: token}},
		"valid and an error at once":        but(func(a *coresdkv1.ValidateTokenResponse) { a.Error = &coresdkv1.ProblemDetail{Status: 401} }),
		"valid and an empty error":          but(func(a *coresdkv1.ValidateTokenResponse) { a.Error = &coresdkv1.ProblemDetail{} }),
		"no subject":                        but(func(a *coresdkv1.ValidateTokenResponse) { a.Subject = "" }),
		"no expiry":                         but(func(a *coresdkv1.ValidateTokenResponse) { a.ExpiresAt = 0 }),
		"an expiry before 1970":             but(func(a *coresdkv1.ValidateTokenResponse) { a.ExpiresAt = -1 }),
		"an expiry beyond all time":         but(func(a *coresdkv1.ValidateTokenResponse) { a.ExpiresAt = math.MaxInt64 }),
		"expired":                           but(func(a *coresdkv1.ValidateTokenResponse) { a.ExpiresAt = time.Now().Add(-31 * time.Second).Unix() }),
		"two practices":                     but(func(a *coresdkv1.ValidateTokenResponse) { a.Claims["tenant_id"] = "practice-2" }),
		"valid alone":                       {Valid: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := asking(t, saying(answer)).Authorize(t.Context(), token)
			denied(t, c, err, coresdk.ErrUnauthorized)
		})
	}
}

func TestAuthorizeDeniesByStatus(t *testing.T) {
	t.Parallel()
	for code, want := range map[codes.Code]error{
		codes.Unauthenticated: coresdk.ErrUnauthorized, codes.PermissionDenied: coresdk.ErrUnauthorized,
		codes.InvalidArgument: coresdk.ErrUnauthorized,
		codes.Unavailable:     coresdk.ErrUnavailable, codes.Internal: coresdk.ErrUnavailable,
		codes.Unimplemented: coresdk.ErrUnavailable, codes.Unknown: coresdk.ErrUnavailable,
		codes.ResourceExhausted: coresdk.ErrUnavailable, codes.Canceled: coresdk.ErrUnavailable,
	} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			sdk := asking(t, coresdktest.Answers{
				ValidateToken: func(_ context.Context, q *coresdkv1.ValidateTokenRequest) (*coresdkv1.ValidateTokenResponse, error) {
					return yes(), status.Error(code, "no: "+q.GetToken())
				},
			})
			c, err := sdk.Authorize(t.Context(), token)
			denied(t, c, err, want)
		})
	}
}

func TestAuthorizeDoesNotAskAboutWhatIsNoToken(t *testing.T) {
	t.Parallel()
	sdk := asking(t, saying(yes())) // would say yes to anything
	for name, bad := range map[string]string{
		"empty": "", "padding alone": "==", "a space": "a b", "a line break": "a\nb", "NUL": "a\x00", "two of them": "a,b",
		"invalid UTF-8": "a\xff", "beyond ASCII": "tøken", "padding inside": "a=b", "too long": strings.Repeat("a", coresdk.MaxToken+1),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := sdk.Authorize(t.Context(), bad)
			denied(t, c, err, coresdk.ErrUnauthorized)
		})
	}
	t.Run("the longest token is asked about", func(t *testing.T) {
		t.Parallel()
		_, err := sdk.Authorize(t.Context(), strings.Repeat("a", coresdk.MaxToken-2)+"==")
		noError(t, err)
	})
}

func TestTheZeroSDKDenies(t *testing.T) {
	t.Parallel()
	for name, sdk := range map[string]*coresdk.SDK{"nil": nil, "zero": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c, err := sdk.Authorize(t.Context(), token)
			denied(t, c, err, coresdk.ErrUnavailable)
			if ok, _, err := sdk.Can(t.Context(), token, "read", "patient/p-001"); ok || !errors.Is(err, coresdk.ErrUnavailable) {
				t.Errorf("Can: %v, %v", ok, err)
			}
			if d, err := sdk.Evaluate(t.Context(), "data.medirecord.allow", nil); d.Allow || !errors.Is(err, coresdk.ErrUnavailable) {
				t.Errorf("Evaluate: %v, %v", d, err)
			}
			if err := sdk.Revoke(t.Context(), token, "lost"); !errors.Is(err, coresdk.ErrUnavailable) {
				t.Errorf("Revoke: %v", err)
			}
			noError(t, sdk.Close())
		})
	}
}

func TestCanIsAllowedOnlyByACleanYes(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		answer  *coresdkv1.AuthorizeResponse
		status  error
		allowed bool
		err     error
	}{
		"allowed":                      {answer: &coresdkv1.AuthorizeResponse{Allowed: true, Reason: "role"}, allowed: true},
		"denied":                       {answer: &coresdkv1.AuthorizeResponse{Reason: "other_practice"}},
		"allowed and an error at once": {answer: &coresdkv1.AuthorizeResponse{Allowed: true, Error: &coresdkv1.ProblemDetail{}}, err: coresdk.ErrUnauthorized},
		"the token is refused":         {status: status.Error(codes.Unauthenticated, token), err: coresdk.ErrUnauthorized},
		"no answer":                    {status: status.Error(codes.Internal, token), err: coresdk.ErrUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			sdk := asking(t, coresdktest.Answers{Authorize: func(_ context.Context, q *coresdkv1.AuthorizeRequest) (*coresdkv1.AuthorizeResponse, error) {
				if q.GetToken() != token || q.GetAction() != "read" || q.GetResource() != "patient/p-001" || q.GetSubject() != "" {
					return nil, status.Error(codes.FailedPrecondition, "not what was asked")
				}
				return tc.answer, tc.status
			}})
			allowed, reason, err := sdk.Can(t.Context(), token, "read", "patient/p-001")
			if allowed != tc.allowed || !errors.Is(err, tc.err) {
				t.Fatalf("got %v, %v; want %v, %v", allowed, err, tc.allowed, tc.err)
			}
			if err == nil && reason != tc.answer.GetReason() {
				t.Errorf("reason %q", reason)
			}
			holdsNoToken(t, err)
		})
	}
}

func TestRevokeFailsUnlessTheSidecarSaysItWorked(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		success bool
		status  error
		fails   bool
	}{
		"success":    {success: true},
		"no success": {fails: true},
		"no answer":  {status: status.Error(codes.Unavailable, token), fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := serve(t, coresdktest.Answers{RevokeToken: func(_ context.Context, q *coresdkv1.RevokeTokenRequest) (*coresdkv1.RevokeTokenResponse, error) {
				asked := q.GetToken() == token && q.GetReason() == "lost phone" && q.GetTenantId() == "practice-1"
				return &coresdkv1.RevokeTokenResponse{Success: asked && tc.success}, tc.status
			}}, coresdktest.Options{})
			err := connect(t, coresdk.Config{Addr: s.Addr, TenantID: "practice-1"}).Revoke(t.Context(), token, "lost phone")
			if (err != nil) != tc.fails {
				t.Errorf("got %v, fails %v", err, tc.fails)
			}
			holdsNoToken(t, err)
		})
	}
}

func TestEveryCallSaysWhoAsks(t *testing.T) {
	t.Parallel()
	asked := make(chan *coresdkv1.ValidateTokenRequest, 2)
	s := serve(t, coresdktest.Answers{ValidateToken: func(_ context.Context, q *coresdkv1.ValidateTokenRequest) (*coresdkv1.ValidateTokenResponse, error) {
		asked <- q
		return yes(), nil
	}}, coresdktest.Options{})
	sdk := connect(t, coresdk.Config{
		Addr: s.Addr, ServiceName: "desk", ServiceToken: "s3cret", TenantID: "practice-1", Audience: "records",
	})
	if md := s.Metadata(); !cmp.Equal(md.Get("x-service-token"), []string{"s3cret"}) { // the health check
		t.Errorf("the health check came with the service token %q", md.Get("x-service-token"))
	}
	_, err := sdk.Authorize(t.Context(), token)
	noError(t, err)
	got, md := <-asked, s.Metadata()
	if !cmp.Equal(md.Get("x-service-name"), []string{"desk"}) || !cmp.Equal(md.Get("x-service-token"), []string{"s3cret"}) {
		t.Errorf("metadata %v", md)
	}
	if got.GetToken() != token || got.GetTenant().GetTenantId() != "practice-1" || got.GetExpectedAudience() != "records" || got.GetMetadata().GetServiceName() != "desk" {
		t.Error("the request does not carry token, tenant, audience and service")
	}

	_, err = connect(t, coresdk.Config{Addr: s.Addr}).Authorize(t.Context(), token)
	noError(t, err)
	if md := s.Metadata(); !cmp.Equal(md.Get("x-service-name"), []string{coresdk.DefaultServiceName}) || md.Get("x-service-token") != nil {
		t.Errorf("metadata without settings %v", md)
	}
}

func TestClaimsPrintNoPerson(t *testing.T) {
	t.Parallel()
	c := coresdk.Claims{Subject: "s-1", Roles: []string{"patient"}, All: map[string]string{"email": "alice@example.org"}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%d"} {
		for _, v := range []any{c, &c} {
			if got, want := fmt.Sprintf(verb, v), `claims of "s-1" as ["patient"]`; got != want {
				t.Errorf("%s prints %s, want %s", verb, got, want)
			}
		}
	}
	if got := c.LogValue().String(); strings.Contains(got, "alice") || !strings.Contains(got, "s-1") {
		t.Errorf("logs %s", got)
	}
}

// denied checks the promise of every refusal: no claims, the right error, and
// no token in it.
func denied(t *testing.T, c *coresdk.Claims, err, want error) {
	t.Helper()
	if c != nil {
		t.Errorf("claims came with the error %v", err)
	}
	if !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
	holdsNoToken(t, err)
}

func holdsNoToken(t *testing.T, err error) {
	t.Helper()
	if err != nil && strings.Contains(err.Error(), token) {
		t.Errorf("the error holds the token: %v", err)
	}
}
