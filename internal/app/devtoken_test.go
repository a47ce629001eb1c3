// SPDX-License-Identifier: Apache-2.0

package app

import (
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/medirecord/medirecord/internal/med"
)

// devFolder is the folder of a development server that has been started once.
func devFolder(t *testing.T) devFiles {
	t.Helper()
	f := devFiles{t.TempDir()}
	if _, err := f.signingKey(); err != nil {
		t.Fatal(err)
	}
	return f
}

type devClaims struct {
	Issuer   string   `json:"iss"`
	Audience string   `json:"aud"`
	Subject  string   `json:"sub"`
	Roles    []string `json:"roles"`
	Practice *string  `json:"practice_id"`
	Patient  *string  `json:"patient_id"`
	MFA      *bool    `json:"mfa_verified"`
	AuthTime int64    `json:"auth_time"`
	Issued   int64    `json:"iat"`
	Expires  int64    `json:"exp"`
	ID       string   `json:"jti"`
	Session  string   `json:"sid"`
}

// claimsOf verifies the token by the key set that the issuer serves.
func claimsOf(t *testing.T, f devFiles, text string) devClaims {
	t.Helper()
	key, err := f.signingKey()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jwks(key)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), `"d"`) {
		t.Fatal("the key set holds the private key")
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(raw, &set); err != nil {
		t.Fatal(err)
	}
	signed, err := jose.ParseSignedCompact(text, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		t.Fatal(err)
	}
	keys := set.Key(signed.Signatures[0].Header.KeyID)
	if len(keys) != 1 {
		t.Fatalf("the key set has %d keys of that id", len(keys))
	}
	payload, err := signed.Verify(keys[0])
	if err != nil {
		t.Fatal(err)
	}
	var c devClaims
	if err := json.Unmarshal(payload, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSignDevToken(t *testing.T) {
	t.Parallel()
	f := devFolder(t)
	for name, c := range map[string]struct {
		ask               DevToken
		sub               string
		practice, patient string
	}{
		"a clinician":               {DevToken{Roles: []string{"clinician"}, Practice: "north", MFA: true, TTL: time.Hour}, "dev-clinician", "north", ""},
		"a patient with a name":     {DevToken{Roles: []string{"patient"}, Practice: "north", Patient: "p-001", Subject: "alice", MFA: true, TTL: 24 * time.Hour}, "alice", "north", "p-001"},
		"two roles, without MFA":    {DevToken{Roles: []string{"nurse", "admin"}, Practice: "south", TTL: time.Second}, "dev-nurse", "south", ""},
		"the other word, provider":  {DevToken{Roles: []string{"provider"}, Practice: "north", TTL: time.Minute}, "dev-provider", "north", ""},
		"break-glass, no practice":  {DevToken{Roles: []string{"break_glass"}, MFA: true, TTL: time.Minute}, "dev-break_glass", "", ""},
		"break-glass of a practice": {DevToken{Roles: []string{"break_glass"}, Practice: "north", TTL: time.Minute}, "dev-break_glass", "north", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := time.Now().Unix()
			text, err := SignDevToken(f.dir, c.ask)
			if err != nil {
				t.Fatal(err)
			}
			got := claimsOf(t, f, text)
			if got.Issuer != DevIssuer || got.Audience != devAudience || got.Subject != c.sub || !slices.Equal(got.Roles, c.ask.Roles) ||
				got.MFA == nil || *got.MFA != c.ask.MFA {
				t.Errorf("got %+v", got)
			}
			if text := func(p *string) string {
				if p == nil {
					return ""
				}
				return *p
			}; text(got.Practice) != c.practice || text(got.Patient) != c.patient || c.practice == "" && got.Practice != nil || c.patient == "" && got.Patient != nil {
				t.Errorf("got practice %v and patient %v", got.Practice, got.Patient)
			}
			if got.Issued < before || got.AuthTime != got.Issued || time.Duration(got.Expires-got.Issued)*time.Second != c.ask.TTL {
				t.Errorf("got the times %d %d %d", got.Issued, got.AuthTime, got.Expires)
			}
		})
	}
}

func TestDevTokensAreTheirOwnSessions(t *testing.T) {
	t.Parallel()
	f := devFolder(t)
	seen := map[string]bool{}
	for range 3 {
		text, err := SignDevToken(f.dir, DevToken{Roles: []string{"nurse"}, Practice: "north", TTL: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		c := claimsOf(t, f, text)
		if c.ID == "" || c.Session == "" || seen[c.ID] || seen[c.Session] {
			t.Errorf("token %q of session %q was there before", c.ID, c.Session)
		}
		seen[c.ID], seen[c.Session] = true, true
	}
}

func TestSignDevTokenRefuses(t *testing.T) {
	t.Parallel()
	f := devFolder(t)
	whole := DevToken{Roles: []string{"nurse"}, Practice: "north", MFA: true, TTL: time.Hour}
	for name, c := range map[string]struct {
		change func(*DevToken)
		want   string
	}{
		"no role":                              {func(d *DevToken) { d.Roles = nil }, "a token needs a role"},
		"an unknown role":                      {func(d *DevToken) { d.Roles = []string{"nurse", "chief"} }, "unknown role"},
		"no practice":                          {func(d *DevToken) { d.Practice = "" }, "needs --practice"},
		"no practice, break_glass and another": {func(d *DevToken) { d.Practice, d.Roles = "", []string{"break_glass", "nurse"} }, "needs --practice"},
		"a practice that cannot be":            {func(d *DevToken) { d.Practice = "hunter 2" }, "--practice must be"},
		"a patient that cannot be":             {func(d *DevToken) { d.Patient = "hunter/2" }, "--patient must be"},
		"no time":                              {func(d *DevToken) { d.TTL = 0 }, "--ttl must be"},
		"time that has passed":                 {func(d *DevToken) { d.TTL = -time.Second }, "--ttl must be"},
		"too much time":                        {func(d *DevToken) { d.TTL = 24*time.Hour + time.Second }, "--ttl must be"},
	} {
		d := whole
		c.change(&d)
		if text, err := SignDevToken(f.dir, d); err == nil || text != "" || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
	}
	empty := t.TempDir()
	if _, err := SignDevToken(empty, whole); err == nil || !strings.Contains(err.Error(), "holds no development server") {
		t.Errorf("an empty folder: %v", err)
	}
	if left, _ := os.ReadDir(empty); len(left) > 0 {
		t.Errorf("an empty folder has %v afterwards", left)
	}
}

func TestDevFilesAreMadeOnceAndForOneReader(t *testing.T) {
	t.Parallel()
	f := devFiles{t.TempDir() + "/data"}
	read := func() string {
		hold, err := f.hold()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = hold.Close() }()
		if err := f.prepare(); err != nil {
			t.Fatal(err)
		}
		password, err := f.password("app")
		if err != nil {
			t.Fatal(err)
		}
		key, err := f.signingKey()
		if err != nil {
			t.Fatal(err)
		}
		set, err := jwks(key)
		if err != nil {
			t.Fatal(err)
		}
		all := password + string(set)
		for _, path := range []string{f.contextKey(), f.services(), f.service("import"), f.service("worker"), f.service("operator")} {
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			info, err := os.Stat(path)
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s has mode %s, want 0600", path, info.Mode())
			}
			all += string(b)
		}
		return all
	}
	first := read()
	if second := read(); second != first {
		t.Error("a second start makes other secrets")
	}
	if _, err := readContextKeys(f.contextKey()); err != nil {
		t.Error(err)
	}
	services, err := readServiceTokens(f.services())
	if err != nil || len(services) != len(devServices) {
		t.Errorf("got %d services, %v", len(services), err)
	}
}

func TestOneHoldsTheFolder(t *testing.T) {
	t.Parallel()
	f := devFiles{t.TempDir()}
	first, err := f.hold()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.hold(); err == nil || !strings.Contains(err.Error(), "another development server runs on "+f.dir) {
		t.Errorf("a second: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	third, err := f.hold()
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	_ = third.Close()
}

func TestASigningKeyThatIsNoneIsNotReplaced(t *testing.T) {
	t.Parallel()
	f := devFiles{t.TempDir()}
	for _, text := range []string{"hunter2", "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n"} {
		if err := os.WriteFile(f.issuerKey(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := f.signingKey(); err == nil || !strings.Contains(err.Error(), "move it away to get a new one") || strings.Contains(err.Error(), "hunter") {
			t.Errorf("got %v", err)
		}
		if b, err := os.ReadFile(f.issuerKey()); err != nil || string(b) != text {
			t.Errorf("the file was touched: %v", err)
		}
	}
}

func TestReadDevInfo(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if _, err := ReadDevInfo(dir); err == nil || !strings.Contains(err.Error(), "no development server is running on "+dir) || errors.Is(err, os.ErrNotExist) {
		t.Errorf("an empty folder: %v", err)
	}
	if err := os.WriteFile(devFiles{dir}.devJSON(), []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadDevInfo(dir); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("garbage: %v", err)
	}
}

// The sample is always the same, is nobody, and begins with the guide's patient.
func TestSamplePatients(t *testing.T) {
	t.Parallel()
	ids, ssns := map[med.PatientID]bool{}, map[string]bool{}
	for n := 1; n <= 60; n++ {
		b, again := samplePatient(n), samplePatient(n)
		p := b.Patient
		if p.Name.Text.Reveal() != again.Patient.Name.Text.Reveal() || p.SSN.Reveal() != again.Patient.SSN.Reveal() || len(b.Records) != len(again.Records) {
			t.Errorf("patient %d is another the second time", n)
		}
		if ids[p.ID] || ssns[p.SSN.Reveal()] {
			t.Errorf("patient %d is there twice", n)
		}
		ids[p.ID], ssns[p.SSN.Reveal()] = true, true
		if n > 1 && !strings.HasPrefix(p.SSN.Reveal(), "9") {
			t.Errorf("patient %d has a number that somebody could have", n)
		}
		if len(b.Records) < 3 || p.Diagnosis == "" {
			t.Errorf("patient %d has %d records and the diagnosis %q", n, len(b.Records), p.Diagnosis.Reveal())
		}
	}
	alice := samplePatient(1).Patient
	if alice.ID != "p-001" || alice.Name.Text.Reveal() != "Alice Smith" || alice.SSN.Reveal() != "123-45-6789" || alice.DOB.Reveal() != "1985-06-15" {
		t.Error("the first is not the guide's")
	}
}
