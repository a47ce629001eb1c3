// SPDX-License-Identifier: Apache-2.0

package sidecar_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/medirecord/medirecord/coresdk"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/policy"
	coresdkv1 "github.com/medirecord/medirecord/proto/coresdk/v1"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

func validate(t *testing.T, w *world, in *coresdkv1.ValidateTokenRequest) *coresdkv1.ValidateTokenResponse {
	t.Helper()
	out, err := w.auth.ValidateToken(t.Context(), in)
	noError(t, err)
	return out
}

func TestValidateTokenSaysWhatTheTokenSays(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	for _, tc := range []struct {
		name  string
		claim claims
		roles string
		want  map[string]string // "" means: not there
	}{
		{"a clinician", claims{"email": "dr@north.example"}, "clinician", map[string]string{
			"iss": issuer, "sub": "somebody", "tenant_id": "north", "practice_id": "north", "roles": "clinician", "mfa_verified": "true", "email": "dr@north.example", "patient_id": "",
		}},
		{"a provider is a clinician", claims{"roles": nil, "role": "provider"}, "clinician", map[string]string{"roles": "clinician"}},
		{"several roles", claims{"roles": []string{"break_glass", "nurse", "of another system"}}, "nurse,break_glass", map[string]string{"roles": "nurse,break_glass"}},
		{"a tenant is a practice", claims{"practice_id": nil, "tenant_id": "south"}, "clinician", map[string]string{"tenant_id": "south", "practice_id": "south"}},
		{"a patient", claims{"roles": []string{"patient"}, "patient_id": "p-001"}, "patient", map[string]string{"patient_id": "p-001"}},
		{"without a second factor", claims{"mfa_verified": false, "amr": []string{"mfa"}}, "clinician", map[string]string{"mfa_verified": "false"}},
		{"break-glass without a practice", claims{"roles": []string{"break_glass"}, "practice_id": nil}, "break_glass", map[string]string{"tenant_id": "", "practice_id": ""}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got := validate(t, w, &coresdkv1.ValidateTokenRequest{Token: w.token(t, tc.claim)})
			if !got.GetValid() || got.GetError() != nil || got.GetSubject() != "somebody" {
				t.Fatalf("got %v", got)
			}
			if roles := strings.Join(got.GetRoles(), ","); roles != tc.roles {
				t.Errorf("roles: got %q, want %q", roles, tc.roles)
			}
			if d := time.Until(time.Unix(got.GetExpiresAt(), 0)); d < 59*time.Minute || d > time.Hour {
				t.Errorf("expires in %s, want an hour", d)
			}
			for name, want := range tc.want {
				if v, there := got.GetClaims()[name]; v != want || there != (want != "") {
					t.Errorf("%s: got %q (there: %v), want %q", name, v, there, want)
				}
			}
		})
	}
}

func TestAnInvalidTokenIsNeverValid(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	noError(t, err)
	good := w.of(t, med.RoleClinician)
	parts := strings.Split(good, ".")
	for name, tok := range map[string]string{
		"none":                 "",
		"garbage":              "garbage",
		"two parts":            strings.Join(parts[:2], "."),
		"a foreign signature":  w.signed(t, other, jose.ES256, nil),
		"HMAC with the key id": w.signed(t, []byte(strings.Repeat("k", 32)), jose.HS256, nil),
		"alg none":             "eyJhbGciOiJub25lIn0." + parts[1] + ".",
		"its payload changed":  parts[0] + "." + strings.Split(w.of(t, med.RoleAdmin), ".")[1] + "." + parts[2],
		"expired":              w.token(t, claims{"exp": w.clock.unix(-31 * time.Second)}),
		"without an expiry":    w.token(t, claims{"exp": nil}),
		"not yet":              w.token(t, claims{"nbf": w.clock.unix(time.Minute)}),
		"another issuer":       w.token(t, claims{"iss": "https://other.invalid"}),
		"another audience":     w.token(t, claims{"aud": "somebody-else"}),
		"no role":              w.token(t, claims{"roles": []string{}}),
		"no practice":          w.token(t, claims{"practice_id": nil}),
		"two practices":        w.token(t, claims{"practice_id": "north", "tenant_id": "south"}),
		"an officer and admin": w.token(t, claims{"roles": []string{"officer", "admin"}}),
		"too long":             strings.Repeat("a", 20<<10),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := validate(t, w, &coresdkv1.ValidateTokenRequest{
				Token:  tok,
				Tenant: &coresdkv1.TenantContext{TenantId: "north", Roles: []string{"admin"}, Attributes: map[string]string{"sub": "somebody", "valid": "true"}},
			})
			// Nothing that a hurried client could take for claims.
			want := &coresdkv1.ValidateTokenResponse{Error: got.GetError()}
			if !proto.Equal(got, want) {
				t.Errorf("got %v, want nothing but an error", got)
			}
			p := got.GetError()
			if p.GetStatus() != 401 || p.GetDetail() != "Valid JWT required. Sidecar validation failed." || p.GetExtensions()["reason"] == "" {
				t.Errorf("problem: %v", p)
			}
			if len(tok) > 20 && strings.Contains(p.String(), tok[len(tok)-20:]) {
				t.Error("the problem repeats the token")
			}
			// And by every other way in.
			if a, err := w.auth.Authorize(t.Context(), &coresdkv1.AuthorizeRequest{Token: tok, Subject: "somebody", Action: "read", Resource: "patient"}); err != nil || a.GetAllowed() {
				t.Errorf("Authorize: %v, %v", a, err)
			}
			if a, err := w.auth.IsRevoked(t.Context(), &coresdkv1.IsRevokedRequest{Token: tok}); err != nil || !a.GetRevoked() {
				t.Errorf("IsRevoked: %v, %v; want revoked: the question is asked to let somebody in", a, err)
			}
			if a, err := w.auth.RevokeToken(t.Context(), &coresdkv1.RevokeTokenRequest{Token: tok}); err != nil || a.GetSuccess() {
				t.Errorf("RevokeToken: %v, %v", a, err)
			}
		})
	}
	t.Run("valid before and after all of these", func(t *testing.T) {
		if !validate(t, w, &coresdkv1.ValidateTokenRequest{Token: good}).GetValid() {
			t.Error("the good token is refused")
		}
	})
}

func TestATokenIsRefusedWhenItExpiresThoughItIsRemembered(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	tok := w.token(t, claims{"exp": w.clock.unix(10 * time.Second)})
	for _, tc := range []struct {
		after time.Duration // a verified token is remembered for a minute
		valid bool
	}{{0, true}, {20 * time.Second, true}, {30 * time.Second, false}} { // the leeway is 30 s
		w.clock.advance(tc.after)
		if got := validate(t, w, &coresdkv1.ValidateTokenRequest{Token: tok}); got.GetValid() != tc.valid {
			t.Errorf("%s later: got %v, want valid %v", tc.after, got, tc.valid)
		}
	}
}

func TestWhatTheRequestSaysOfTheCallerChangesNothing(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	tok := w.of(t, med.RoleNurse)
	tenant := &coresdkv1.TenantContext{TenantId: "south", TenantName: "South", Roles: []string{"admin", "officer"}, Attributes: map[string]string{"roles": "admin", "mfa": "fresh"}}
	who := &coresdkv1.RequestMetadata{RequestId: "r", ServiceName: "service:import"}

	plain := validate(t, w, &coresdkv1.ValidateTokenRequest{Token: tok})
	dressed := validate(t, w, &coresdkv1.ValidateTokenRequest{Token: tok, Tenant: tenant, Metadata: who})
	if !plain.GetValid() || !proto.Equal(plain, dressed) {
		t.Errorf("ValidateToken: got %v, want %v", dressed, plain)
	}

	for _, tc := range []struct {
		name, tok, action, resource string
		allowed                     bool
		reason                      string
	}{
		{"without a token", "", "read", "patient/p-001", false, "no_token"},
		{"a nurse reads a patient", tok, "read", "patient/p-001", true, "permitted"},
		{"a nurse does not delete one", tok, "delete", "patient/p-001", false, "role"},
		{"a nurse does not read the trail", tok, "read", "audit", false, "role"},
		{"an officer reads no patient", w.of(t, med.RoleOfficer), "read", "patient/p-001", false, "role"},
		{"an officer reads the trail", w.of(t, med.RoleOfficer), "read", "audit", true, "permitted"},
		{"a patient reads themselves", w.token(t, claims{"roles": []string{"patient"}, "patient_id": "p-001"}), "read", "patient/p-001", true, "own_record"},
		{"a patient reads nobody else", w.token(t, claims{"roles": []string{"patient"}, "patient_id": "p-001"}), "read", "patient/p-002", false, "not_self"},
		{"without a second factor", w.token(t, claims{"mfa_verified": nil}), "read", "patient/p-001", false, "mfa_required"},
		{"an action nobody named", tok, "fly", "patient/p-001", false, "role"},
		{"a resource nobody named", tok, "read", "moon", false, "role"},
		{"nothing at all", tok, "", "", false, "role"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			bare := &coresdkv1.AuthorizeRequest{Token: tc.tok, Action: tc.action, Resource: tc.resource}
			full := &coresdkv1.AuthorizeRequest{
				Token: tc.tok, Action: tc.action, Resource: tc.resource, Subject: "the-admin", Tenant: tenant, Metadata: who,
				Context: map[string]string{"roles": "admin", "mfa": "fresh", "relation": "self", "grant": "true"},
			}
			for _, in := range []*coresdkv1.AuthorizeRequest{bare, full} {
				got, err := w.auth.Authorize(t.Context(), in)
				noError(t, err)
				if got.GetAllowed() != tc.allowed || got.GetReason() != tc.reason || (got.GetError() != nil) != (tc.tok == "") {
					t.Errorf("got %v, want %v because %s", got, tc.allowed, tc.reason)
				}
			}
		})
	}
}

func TestExpectedAudience(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	tok := w.token(t, claims{"aud": []string{audience, "portal"}})
	for want, valid := range map[string]bool{"": true, audience: true, "portal": true, "Portal": false, "medirecord portal": false, "other": false} {
		got := validate(t, w, &coresdkv1.ValidateTokenRequest{Token: tok, ExpectedAudience: want})
		if got.GetValid() != valid || !valid && (got.GetError().GetExtensions()["reason"] != "wrong_audience" || got.GetSubject() != "" || len(got.GetClaims()) > 0) {
			t.Errorf("expected audience %q: got %v, want valid %v", want, got, valid)
		}
	}
}

// asking is the evaluation of a rule, with a token in the metadata if any.
func (w *world) evaluate(t *testing.T, rule, input string, headers ...string) (*coresdkv1.PolicyEvaluateResponse, error) {
	t.Helper()
	ctx := t.Context()
	for _, h := range headers {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", h)
	}
	return w.policy.Evaluate(ctx, &coresdkv1.PolicyEvaluateRequest{
		Rule: rule, InputJson: input, Tenant: &coresdkv1.TenantContext{TenantId: "north", Roles: []string{"admin"}},
	})
}

const readPatient = `"action":"read","resource":{"type":"patient","relation":"same_practice","sensitivity":"normal","state":"live"}`

func TestEvaluateBelievesTheTokenOnly(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	bearer := func(role med.Role) string { return "Bearer " + w.of(t, role) }
	lies := `,"context":{"roles":["admin"],"mfa":"fresh","grant":true},"subject":{"roles":["admin"],"mfa":"fresh","grant":true},"roles":["admin"]`
	for _, tc := range []struct {
		name, input, header string
		allow               bool
		reason, decision    string
	}{
		{"nobody", readPatient, "", false, "role", "deny"},
		{"nobody who says admin", readPatient + lies, "", false, "role", "deny"},
		{"an officer who says admin", readPatient + lies, bearer(med.RoleOfficer), false, "role", "deny"},
		{"a clinician", readPatient, bearer(med.RoleClinician), true, "permitted", "allow"},
		{"a nurse, who has fields hidden", readPatient, bearer(med.RoleNurse), true, "permitted", "mask"},
		{"a clinician without a second factor who says it was fresh", readPatient + lies, "Bearer " + w.token(t, claims{"mfa_verified": nil}), false, "mfa_required", "deny"},
		{"break-glass, where a grant is only said", readPatient + lies, bearer(med.RoleBreakGlass), false, "grant_required", "deny"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			var headers []string
			if tc.header != "" {
				headers = append(headers, tc.header)
			}
			got, err := w.evaluate(t, "data.medirecord.allow", "{"+tc.input+"}", headers...)
			noError(t, err)
			perm := got.GetResourcePerm()
			if got.GetResult() != tc.allow || got.GetReason() != tc.reason || perm.GetDecision() != tc.decision || got.GetError() != nil {
				t.Errorf("got %v, want %v because %s: %s", got, tc.allow, tc.reason, tc.decision)
			}
			if perm.GetPolicyVersion() != medtest.Policy(t).Revision() || !perm.GetObligations().GetAudit() || (perm.GetSafeHttpStatus() == 200) != tc.allow {
				t.Errorf("permission: %v", perm)
			}
			if masked := perm.GetObligations().GetMaskFieldClasses(); tc.decision == "mask" && !slices.Equal(masked, []string{"insurance", "ssn"}) {
				t.Errorf("a nurse has masked: %v", masked)
			}
		})
	}
	t.Run("a bad token is nobody and says so", func(t *testing.T) {
		t.Parallel()
		for _, headers := range [][]string{
			{"Bearer garbage"},
			{"Basic abc"},
			{"bearer"},
			{"Bearer "},
			{bearer(med.RoleClinician), bearer(med.RoleClinician)},
			{"Bearer " + w.token(t, claims{"exp": w.clock.unix(-time.Hour)})},
		} {
			got, err := w.evaluate(t, "data.medirecord.allow", "{"+readPatient+"}", headers...)
			noError(t, err)
			if got.GetResult() || got.GetResourcePerm().GetDecision() != "deny" || got.GetError().GetStatus() != 401 {
				t.Errorf("got %v, want a denial and a 401", got)
			}
		}
	})
}

func TestEvaluateTakesOnlyRulesOfThePolicyAndObjects(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	tok := "Bearer " + w.of(t, med.RoleAdmin)
	for _, rule := range []string{
		"", "data", "data.medirecord", "data.medirecord.", "data.system.x", "data.medirecord.nosuch", "data.medirecord.allow; true", "true",
		"data.medirecord.allow.x", `data.medirecord["allow"]`, "data.medirecord.permits.patient", "input", "opa.runtime()", " data.medirecord.allow", "DATA.medirecord.allow",
	} {
		if got, err := w.evaluate(t, rule, "{"+readPatient+"}", tok); status.Code(err) != codes.InvalidArgument {
			t.Errorf("rule %q: got %v, %v; want InvalidArgument", rule, got, err)
		}
	}
	for name, input := range map[string]string{
		"not JSON": "{", "a list": "[]", "a number": "1", "two documents": "{}{}", "trailing words": "{} x", "too large": `{"a":"` + strings.Repeat("a", 64<<10) + `"}`,
	} {
		if got, err := w.evaluate(t, "data.medirecord.allow", input, tok); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: got %v, %v; want InvalidArgument", name, got, err)
		}
	}
	for _, input := range []string{"", "null", "{}", `{"resource":[],"action":{},"context":"admin"}`} {
		got, err := w.evaluate(t, "data.medirecord.allow", input, tok)
		if err != nil || got.GetResult() || got.GetResourcePerm().GetDecision() != "deny" {
			t.Errorf("input %q: got %v, %v; want a denial", input, got, err)
		}
	}
	// A rule that is not a yes or no is not a yes.
	for _, rule := range []string{"data.medirecord.decision", "data.medirecord.fields", "data.medirecord.permits", "data.medirecord.reason_code"} {
		if got, err := w.evaluate(t, rule, "{"+readPatient+"}", tok); err != nil || got.GetResult() {
			t.Errorf("rule %s: got %v, %v", rule, got, err)
		}
	}
}

func TestGetJwksReturnsPublicKeysOnly(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	got, err := w.auth.GetJwks(t.Context(), &coresdkv1.GetJwksRequest{})
	noError(t, err)
	var set struct{ Keys []map[string]string }
	noError(t, json.Unmarshal([]byte(got.GetJwksJson()), &set))
	if len(set.Keys) != 1 || set.Keys[0]["kid"] != "k1" || set.Keys[0]["kty"] != "EC" || set.Keys[0]["d"] != "" || set.Keys[0]["k"] != "" {
		t.Errorf("got %v", slices.Collect(maps.Keys(set.Keys[0])))
	}
}

func TestRevocationOutlivesAKill(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	ctx := t.Context()
	// Many at once: each is on disk when it is answered for.
	var tokens []string
	for i := range 20 {
		tokens = append(tokens, w.token(t, claims{"sub": fmt.Sprint("s", i), "jti": fmt.Sprint("j", i)}))
	}
	spared := w.of(t, med.RoleClinician)
	var all sync.WaitGroup
	for _, tok := range tokens {
		all.Go(func() {
			if r, err := w.auth.IsRevoked(ctx, &coresdkv1.IsRevokedRequest{Token: tok}); err != nil || r.GetRevoked() {
				t.Errorf("before: %v, %v", r, err)
			}
			if r, err := w.auth.RevokeToken(ctx, &coresdkv1.RevokeTokenRequest{Token: tok, TenantId: "north", Reason: "lost phone"}); err != nil || !r.GetSuccess() {
				t.Errorf("revoking: %v, %v", r, err)
			}
		})
	}
	all.Wait()
	check := func(when string) {
		t.Helper()
		for i, tok := range tokens {
			if r, err := w.auth.IsRevoked(ctx, &coresdkv1.IsRevokedRequest{Token: tok}); err != nil || !r.GetRevoked() {
				t.Fatalf("%s: token %d is not revoked: %v", when, i, err)
			}
			if got := validate(t, w, &coresdkv1.ValidateTokenRequest{Token: tok}); got.GetValid() || got.GetError().GetExtensions()["reason"] != "revoked" {
				t.Fatalf("%s: token %d is valid: %v", when, i, got)
			}
			refusedWith(t, w.one(t, who(tok)), "unauthenticated", "revoked")
			refusedWith(t, w.one(t, may(tok, "p-001")), "unauthenticated", "revoked")
		}
		if !validate(t, w, &coresdkv1.ValidateTokenRequest{Token: spared}).GetValid() {
			t.Fatal(when + ": a token that nobody revoked is refused")
		}
	}
	check("after revoking")
	w.restart(t)
	check("after a kill")
	// Revoking again is a yes, and another spelling of the signature no way out:
	// what is revoked is the token's id.
	if r, err := w.auth.RevokeToken(ctx, &coresdkv1.RevokeTokenRequest{Token: tokens[0]}); err != nil || !r.GetSuccess() {
		t.Errorf("revoking again: %v, %v", r, err)
	}
	again := w.token(t, claims{"sub": "s0", "jti": "j0"})
	if validate(t, w, &coresdkv1.ValidateTokenRequest{Token: again}).GetValid() {
		t.Error("the same token under another signature is valid")
	}
	w.clock.advance(30 * time.Minute)
	w.restart(t)
	check("later, before expiry")
}

func TestTheSDKAgainstTheRealSidecar(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	sdk, err := coresdk.New(t.Context(), coresdk.Config{Addr: w.addr, Dev: true, TenantID: "south", ServiceName: "portal", Timeout: 60 * time.Second})
	noError(t, err)
	defer func() { noError(t, sdk.Close()) }()
	tok := w.token(t, claims{"roles": []string{"patient"}, "patient_id": "p-001"})

	c, err := sdk.Authorize(t.Context(), tok)
	noError(t, err)
	if c.Subject != "somebody" || c.Issuer != issuer || c.TenantID != "north" || !c.Is("patient") || c.PatientID != "p-001" || !c.MFA {
		t.Errorf("claims %+v of tenant %q, patient %q", c, c.TenantID, c.PatientID)
	}
	if _, err := sdk.Authorize(t.Context(), tok[:len(tok)-4]+"AAAA"); !errors.Is(err, coresdk.ErrUnauthorized) {
		t.Errorf("a broken token: %v", err)
	}
	if ok, _, err := sdk.Can(t.Context(), tok, "read", "patient/p-001"); err != nil || !ok {
		t.Errorf("Can: %v, %v", ok, err)
	}
	if ok, reason, err := sdk.Can(t.Context(), tok, "read", "patient/p-002"); err != nil || ok || reason != "not_self" {
		t.Errorf("Can, another patient: %v (%s), %v", ok, reason, err)
	}
	// The SDK sends no token here: nobody asks, whatever the input says.
	d, err := sdk.Evaluate(t.Context(), "data.medirecord.allow", map[string]any{"action": "read", "context": map[string]any{"roles": []string{"admin"}}})
	if err != nil || d.Allow {
		t.Errorf("Evaluate: %+v, %v", d, err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+w.of(t, med.RoleClinician))
	var input map[string]any
	noError(t, json.Unmarshal([]byte("{"+readPatient+"}"), &input))
	if d, err = sdk.Evaluate(ctx, "data.medirecord.allow", input); err != nil || !d.Allow || !d.Audit {
		t.Errorf("Evaluate with a token: %+v, %v", d, err)
	}
	noError(t, sdk.Revoke(t.Context(), tok, "lost"))
	if _, err := sdk.Authorize(t.Context(), tok); !errors.Is(err, coresdk.ErrUnauthorized) {
		t.Errorf("after Revoke: %v", err)
	}
	w.server.Stop()
	if _, err := sdk.Authorize(t.Context(), w.of(t, med.RoleClinician)); !errors.Is(err, coresdk.ErrUnavailable) {
		t.Errorf("after the sidecar stopped: %v", err)
	}
}

// openPolicy is the built-in policy with one word changed: a nurse sees the SSN.
func openPolicy(t *testing.T) *policy.Engine {
	t.Helper()
	src, err := policy.Embedded()
	noError(t, err)
	at := strings.Index(string(src.Rego), `"nurse": {`+"\n\t\t\"mrn\"")
	if at < 0 {
		t.Fatal("the policy file's table of views looks different now")
	}
	src.Rego = []byte(string(src.Rego[:at]) + strings.Replace(string(src.Rego[at:]), `"ssn": "hide"`, `"ssn": "reveal"`, 1))
	src.Cases = nil
	e, err := policy.Load(context.Background(), src)
	noError(t, err)
	return e
}

func TestWatchPolicyUpdates(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	now, next := medtest.Policy(t), openPolicy(t)
	fresh, err := w.policy.WatchPolicyUpdates(ctx, &coresdkv1.WatchPolicyUpdatesRequest{})
	noError(t, err)
	known, err := w.policy.WatchPolicyUpdates(ctx, &coresdkv1.WatchPolicyUpdatesRequest{LastBundleVersion: now.Revision()})
	noError(t, err)
	first, err := fresh.Recv()
	noError(t, err)
	if first.GetBundleVersion() != now.Revision() {
		t.Errorf("got %s, want the revision in force %s", first.GetBundleVersion(), now.Revision())
	}
	w.engine.Store(next)
	for name, stream := range map[string]interface {
		Recv() (*coresdkv1.PolicyBundleUpdate, error)
	}{"who knew nothing": fresh, "who knew the first": known} {
		u, err := stream.Recv()
		noError(t, err)
		if u.GetBundleVersion() != next.Revision() || len(u.GetBundleData()) > 0 || u.GetUpdatedAt() == 0 {
			t.Errorf("%s: got %v, want the revision %s and no text", name, u, next.Revision())
		}
	}
}

func TestWhatCannotBeWrittenDownIsNotSaidToBe(t *testing.T) {
	t.Parallel()
	w := start(t, options{})
	tok := w.of(t, med.RoleClinician)
	er := w.er(t, claims{"sid": "s"})
	kept := w.granted(t, er, "p-001")
	noError(t, w.service.Close()) // the state file takes no more

	r, err := w.auth.RevokeToken(t.Context(), &coresdkv1.RevokeTokenRequest{Token: tok})
	if status.Code(err) != codes.Unavailable || r.GetSuccess() {
		t.Errorf("RevokeToken: got %v, %v; want Unavailable", r, err)
	}
	if r, err := w.auth.IsRevoked(t.Context(), &coresdkv1.IsRevokedRequest{Token: tok}); err != nil || r.GetRevoked() {
		t.Errorf("IsRevoked: got %v, %v; a revocation that failed is none", r, err)
	}
	refusedWith(t, w.one(t, emergency(er, "p-002")), "denied", "grant_not_kept")
	if g := w.granted(t, er, "p-001"); g.GetId() != kept.GetId() {
		t.Errorf("an open grant needs no writing: got %v", g)
	}
	operator := pb.NewGateServiceClient(connect(t, w.addr, "operator-token"))
	refusedWith(t, askOn(t, operator, serveQ("practice.add", "north"))[0], "denied", "state_not_kept")

	w.restart(t)
	if !validate(t, w, &coresdkv1.ValidateTokenRequest{Token: tok}).GetValid() {
		t.Error("after a restart the token is revoked: so it was, after all")
	}
	if g := w.granted(t, er, "p-002"); !g.GetOpened() {
		t.Errorf("after a restart a grant can be opened: got %v", g)
	}
}
