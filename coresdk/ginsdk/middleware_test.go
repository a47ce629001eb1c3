// SPDX-License-Identifier: Apache-2.0

package ginsdk_test

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/gin-gonic/gin"
	"github.com/google/go-cmp/cmp"

	"github.com/medirecord/medirecord/coresdk"
	"github.com/medirecord/medirecord/coresdk/coresdktest"
	"github.com/medirecord/medirecord/coresdk/ginsdk"
	coresdkv1 "github.com/medirecord/medirecord/proto/coresdk/v1"
)

func TestMain(m *testing.M) {
	gin.SetMode(gin.ReleaseMode)
	os.Exit(m.Run())
}

// people are the tokens that the sidecar of these tests knows.
func people() coresdktest.Answers {
	return coresdktest.Tokens(map[string]*coresdkv1.ValidateTokenResponse{
		"clinician":                           {Subject: "dr-lee", Roles: []string{"clinician"}, Claims: map[string]string{"practice_id": "north"}},
		"admin":                               {Subject: "root", Roles: []string{"admin"}, Claims: map[string]string{"mfa_verified": "true"}},
		"nobody":                              {Subject: "nobody"},
		strings.Repeat("a", coresdk.MaxToken): {Subject: "long"},
	})
}

func sidecar(t *testing.T, a coresdktest.Answers) (*coresdktest.Sidecar, *coresdk.SDK) {
	t.Helper()
	s, err := coresdktest.Serve(a, coresdktest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	sdk, err := coresdk.New(t.Context(), coresdk.Config{Addr: s.Addr, Timeout: time.Minute, ConnectTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(sdk.Close(), s.Close()); err != nil {
			t.Error(err)
		}
	})
	return s, sdk
}

// desk is a service with one route for each guard. Its handlers answer with
// the subject; what they say is what leaked when it should not have.
func desk(sdk *coresdk.SDK, opts ...ginsdk.Option) http.Handler {
	r := gin.New()
	who := func(c *gin.Context) { c.String(http.StatusOK, "hello "+ginsdk.Claims(c).Subject) }
	r.GET("/unguarded/role", ginsdk.RequireRole("clinician"), who)
	r.GET("/unguarded/mfa", ginsdk.RequireMFA(), who)
	r.Use(ginsdk.Middleware(sdk, opts...))
	r.GET("/any", who)
	r.GET("/clinical", ginsdk.RequireRole("nurse", "clinician"), who)
	r.GET("/noroles", ginsdk.RequireRole(), who)
	r.GET("/mfa", ginsdk.RequireMFA(), who)
	return r
}

func get(h http.Handler, path string, authorization ...string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodGet, path, nil)
	for _, v := range authorization {
		req.Header.Add("Authorization", v)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func TestAValidTokenPasses(t *testing.T) {
	t.Parallel()
	_, sdk := sidecar(t, people())
	for _, header := range []string{"Bearer clinician", "bearer clinician", "BEARER clinician", "Bearer   clinician"} {
		w := get(desk(sdk), "/any", header)
		if w.Code != http.StatusOK || w.Body.String() != "hello dr-lee" {
			t.Errorf("%q: %d %s", header, w.Code, w.Body)
		}
	}
	if w := get(desk(sdk), "/any", "Bearer "+strings.Repeat("a", coresdk.MaxToken)); w.Code != http.StatusOK {
		t.Errorf("the longest token: %d", w.Code)
	}
}

func TestEverythingElseIsTheGuides401(t *testing.T) {
	t.Parallel()
	_, sdk := sidecar(t, people())
	for name, headers := range map[string][]string{
		"no header":                 nil,
		"an empty header":           {""},
		"a scheme alone":            {"Bearer"},
		"a scheme and a space":      {"Bearer "},
		"a token alone":             {"clinician"},
		"another scheme":            {"Basic clinician"},
		"a scheme that starts so":   {"Bearerx clinician"},
		"a tab for a space":         {"Bearer\tclinician"},
		"two headers":               {"Bearer clinician", "Bearer clinician"},
		"two headers, one empty":    {"Bearer clinician", ""},
		"two headers, one foreign":  {"Basic x", "Bearer clinician"},
		"two in one":                {"Bearer clinician, Bearer admin"},
		"two in one without spaces": {"Bearer clinician,admin"},
		"something after the token": {"Bearer clinician x"},
		"a space before the scheme": {" Bearer clinician"},
		"a longer token":            {"Bearer " + strings.Repeat("a", coresdk.MaxToken+1)},
		"an unknown token":          {"Bearer stolen"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			unauthorized(t, get(desk(sdk), "/any", headers...), "unauthorized")
		})
	}
}

func TestWithoutASidecarEverythingIs401(t *testing.T) {
	t.Parallel()
	s, sdk := sidecar(t, people())
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, sdk := range map[string]*coresdk.SDK{"dead": sdk, "nil": nil, "zero": {}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			unauthorized(t, get(desk(sdk), "/any", "Bearer clinician"), "sidecar_unavailable")
		})
	}
}

func TestTheRequestsContextEndsTheQuestion(t *testing.T) {
	t.Parallel()
	_, sdk := sidecar(t, people())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	req := httptest.NewRequest(http.MethodGet, "/any", nil).WithContext(ctx)
	req.Header.Set("Authorization", "Bearer clinician")
	w := httptest.NewRecorder()
	var reason error
	desk(sdk, ginsdk.WithRefusal(func(_ *gin.Context, err error) { reason = err })).ServeHTTP(w, req)
	unauthorized(t, w, "sidecar_unavailable")
	if !errors.Is(reason, context.Canceled) {
		t.Errorf("refused for %v", reason)
	}
}

func TestGuards(t *testing.T) {
	t.Parallel()
	_, sdk := sidecar(t, people())
	h := desk(sdk)
	for _, tc := range []struct {
		path, token string
		status      int
		code        string
	}{
		{"/clinical", "clinician", 200, ""},
		{"/clinical", "admin", 403, "forbidden"},
		{"/clinical", "nobody", 403, "forbidden"},
		{"/clinical", "stolen", 401, "unauthorized"},
		{"/noroles", "clinician", 403, "forbidden"},
		{"/noroles", "nobody", 403, "forbidden"},
		{"/mfa", "admin", 200, ""},
		{"/mfa", "clinician", 403, "mfa_required"},
		{"/mfa", "stolen", 401, "unauthorized"},
		{"/unguarded/role", "clinician", 401, "unauthorized"},
		{"/unguarded/mfa", "admin", 401, "unauthorized"},
	} {
		t.Run(tc.token+" at "+tc.path, func(t *testing.T) {
			t.Parallel()
			w := get(h, tc.path, "Bearer "+tc.token)
			if w.Code != tc.status {
				t.Fatalf("got %d, want %d", w.Code, tc.status)
			}
			if tc.status == 200 {
				return
			}
			p := problem(t, w)
			if p["code"] != tc.code || p["status"] != float64(tc.status) || strings.Contains(w.Body.String(), "hello") {
				t.Errorf("problem %v", p)
			}
		})
	}
}

func TestTheProblemsOfGuards(t *testing.T) {
	t.Parallel()
	_, sdk := sidecar(t, people())
	for path, want := range map[string]map[string]any{
		"/noroles": {
			"type": "https://medirecord.example/errors/forbidden", "title": "Forbidden", "status": 403.0,
			"detail": "Your role does not allow this.", "code": "forbidden", "hipaa_category": "access_control",
		},
		"/mfa": {
			"type": "https://medirecord.example/errors/mfa-required", "title": "Forbidden", "status": 403.0, "code": "mfa_required",
			"detail":         "This needs multi-factor authentication. Sign in again with a second factor.",
			"hipaa_category": "authentication",
		},
	} {
		got := problem(t, get(desk(sdk), path, "Bearer clinician"))
		delete(got, "instance")
		if diff := cmp.Diff(got, want); diff != "" {
			t.Errorf("%s (-got +want):\n%s", path, diff)
		}
	}
}

func TestRefusalsAreToldAndNamed(t *testing.T) {
	t.Parallel()
	_, sdk := sidecar(t, people())
	var reasons []error
	h := desk(sdk,
		ginsdk.WithRequestID(func(*gin.Context) string { return "0190b6a1-0000-7000-8000-000000000001" }),
		ginsdk.WithRefusal(func(c *gin.Context, err error) {
			if !c.IsAborted() {
				t.Error("the request was not yet refused")
			}
			reasons = append(reasons, err)
		}))
	p := problem(t, get(h, "/any", "Bearer stolen-secret-token"))
	if p["instance"] != "urn:uuid:0190b6a1-0000-7000-8000-000000000001" {
		t.Errorf("instance %v", p["instance"])
	}
	get(h, "/any")
	get(h, "/any", "Bearer clinician")
	if len(reasons) != 2 || !errors.Is(reasons[0], coresdk.ErrUnauthorized) || strings.Contains(reasons[0].Error(), "secret") {
		t.Errorf("told of %v", reasons)
	}
	one := problem(t, get(desk(sdk), "/any"))["instance"]
	if other := problem(t, get(desk(sdk), "/any"))["instance"]; one == other {
		t.Errorf("two refusals are both %v", one)
	}
}

func TestClaimsWithoutMiddlewareAreNil(t *testing.T) {
	t.Parallel()
	c, _ := gin.CreateTestContext(httptest.NewRecorder())
	if ginsdk.Claims(c) != nil || ginsdk.Claims(nil) != nil || ginsdk.Claims(&gin.Context{}) != nil {
		t.Error("claims out of nothing")
	}
	for _, key := range []any{"claims", "claimsKey", struct{}{}} {
		c.Set(key, &coresdk.Claims{Subject: "forged"})
	}
	if ginsdk.Claims(c) != nil {
		t.Error("another package's value counts as claims")
	}
}

// unauthorized checks the guide's 401, word for word.
func unauthorized(t *testing.T, w *httptest.ResponseRecorder, code string) {
	t.Helper()
	if w.Code != http.StatusUnauthorized {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
	if got := w.Header().Values("WWW-Authenticate"); !cmp.Equal(got, []string{"Bearer"}) {
		t.Errorf("WWW-Authenticate %q", got)
	}
	got := problem(t, w)
	delete(got, "instance")
	want := map[string]any{
		"type": "https://medirecord.example/errors/unauthorized", "title": "Unauthorized", "status": 401.0,
		"detail": "Valid JWT required. Sidecar validation failed.", "code": code, "hipaa_category": "authentication",
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("problem (-got +want):\n%s", diff)
	}
}

var instance = regexp.MustCompile(`^urn:uuid:[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)

// problem returns the body of a refusal, once its form is right.
func problem(t *testing.T, w *httptest.ResponseRecorder) map[string]any {
	t.Helper()
	if ct := w.Header().Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("content type %q", ct)
	}
	if cc := w.Header().Get("Cache-Control"); cc != "no-store" {
		t.Errorf("Cache-Control %q", cc)
	}
	var p map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatalf("%v in %s", err, w.Body)
	}
	if id, _ := p["instance"].(string); !instance.MatchString(id) {
		t.Errorf("instance %q", id)
	}
	return p
}
