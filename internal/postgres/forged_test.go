// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/token"
)

// parts of a signed context: version, key id, payload, MAC.
func parts(signed string) (version, kid, payload, mac string) {
	p := strings.Split(signed, ".")
	return p[0], p[1], p[2], p[3]
}

// altered is a signed context with its payload changed and its MAC kept.
func altered(t *testing.T, signed string, change func(map[string]any)) string {
	t.Helper()
	v, kid, payload, mac := parts(signed)
	raw, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		t.Fatal(err)
	}
	claims := map[string]any{}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(&claims); err != nil {
		t.Fatal(err)
	}
	change(claims)
	if raw, err = json.Marshal(claims); err != nil {
		t.Fatal(err)
	}
	return strings.Join([]string{v, kid, base64.RawURLEncoding.EncodeToString(raw), mac}, ".")
}

// everything is a context with every member that one can have.
func everything() caller {
	c := clinician("north", "north-1")
	c.Self, c.Grant, c.GrantExpires, c.Admin, c.MaxRows = "north-1", somebodysGrant, 1, true, 1
	return c
}

// The forged contexts, by what is wrong with them.
func forged(t *testing.T) map[string]string {
	t.Helper()
	good := clinician("north", "north-1").signed(t)
	v, kid, payload, mac := parts(good)
	full := everything().signed(t)
	out := map[string]string{
		"an empty one":                            "",
		"a blank":                                 " ",
		"garbage":                                 "x",
		"dots":                                    "....",
		"only a version":                          "v1",
		"only a version and a key":                "v1." + kid,
		"without a MAC":                           strings.Join([]string{v, kid, payload}, "."),
		"with an empty MAC":                       strings.Join([]string{v, kid, payload, ""}, "."),
		"with a MAC of zeros":                     strings.Join([]string{v, kid, payload, strings.Repeat("0", 64)}, "."),
		"with a MAC in capitals":                  strings.Join([]string{v, kid, payload, strings.ToUpper(mac)}, "."),
		"with a MAC of another context":           strings.Join([]string{v, kid, payload, good[:0] + mustPart(full, 3)}, "."),
		"with a MAC that is one short":            good[:len(good)-1],
		"with a MAC that is one long":             good + "0",
		"with a MAC of which one digit differs":   good[:len(good)-1] + otherDigit(good[len(good)-1]),
		"with a blank before":                     " " + good,
		"with a blank after":                      good + " ",
		"with a line after":                       good + "\n",
		"with a dot after":                        good + ".",
		"with a part after":                       good + "." + mac,
		"without its payload":                     strings.Join([]string{v, kid, "", mac}, "."),
		"with its payload cut":                    strings.Join([]string{v, kid, payload[:len(payload)-4], mac}, "."),
		"with another payload":                    strings.Join([]string{v, kid, mustPart(full, 2), mac}, "."),
		"with its payload not encoded":            strings.Join([]string{v, kid, `{"use":"context","exp":99999999999999}`, mac}, "."),
		"with something else than the last dot":   good[:len(good)-65] + "," + mac,
		"with a digit in place of the last dot":   good[:len(good)-65] + "0" + mac,
		"with padding in place of the last dot":   good[:len(good)-65] + "=" + mac,
		"under an unknown key":                    strings.Join([]string{v, "other", payload, mac}, "."),
		"under no key":                            strings.Join([]string{v, "", payload, mac}, "."),
		"under a key that is SQL":                 strings.Join([]string{v, "' or true --", payload, mac}, "."),
		"under every key":                         strings.Join([]string{v, "%", payload, mac}, "."),
		"of another version":                      strings.Join([]string{"v2", kid, payload, mac}, "."),
		"of a megabyte":                           strings.Repeat("A", 1<<20),
		"of a megabyte of dots":                   strings.Repeat(".", 1<<20),
		"of a megabyte before the MAC":            strings.Join([]string{v, kid, strings.Repeat("A", 1<<20), mac}, "."),
		"of other scripts' digits":                strings.Join([]string{v, kid, payload, strings.Repeat("٠", 64)}, "."),
		"of two in one":                           good + good,
		"with a guessed key":                      clinician("north", "north-1").signedWith(t, token.ContextKey{KID: kid, Key: [32]byte{'g', 'u', 'e', 's', 's'}}, time.Now),
		"with a key of almost zeros":              clinician("north", "north-1").signedWith(t, token.ContextKey{KID: kid, Key: [32]byte{31: 1}}, time.Now),
		"with the attacker's own key and its id":  clinician("north", "north-1").signedWith(t, token.ContextKey{KID: "evil", Key: [32]byte{'e'}}, time.Now),
		"that expired a moment ago":               caller{Context: north1.Context, ttl: -time.Millisecond}.signed(t),
		"that expired an hour ago":                caller{Context: bulk.Context, ttl: -time.Hour}.signed(t),
		"that was a grant":                        signedGrant(t),
		"that says an id instead of a signed one": "north-1",
	}
	for _, name := range []string{"use", "iss", "sub", "roles", "practice", "action", "patient", "self", "grant", "grant_exp", "admin", "max_rows", "sid", "nonce", "exp"} {
		out["with "+name+" left out and the MAC kept"] = altered(t, full, func(c map[string]any) {
			if _, there := c[name]; !there {
				t.Fatalf("the full context has no %s", name)
			}
			delete(c, name)
		})
		out["with "+name+" changed and the MAC kept"] = altered(t, full, func(c map[string]any) {
			switch v := c[name].(type) {
			case string:
				c[name] = v + "x"
			case json.Number:
				c[name] = json.Number(v.String() + "0")
			case bool:
				c[name] = !v
			default:
				c[name] = []string{"admin"}
			}
		})
	}
	for _, m := range []struct {
		name  string
		value any
	}{{"admin", true}, {"svc", "import"}, {"self", "south-1"}, {"grant", somebodysGrant}} {
		out["with "+m.name+" added and the MAC kept"] = altered(t, good, func(c map[string]any) { c[m.name] = m.value })
	}
	out["with its own members in another order"] = altered(t, good, func(map[string]any) {})
	return out
}

func mustPart(signed string, n int) string { return strings.Split(signed, ".")[n] }

func otherDigit(c byte) string {
	if c == '0' {
		return "1"
	}
	return "0"
}

func signedGrant(t *testing.T) string {
	t.Helper()
	s, err := token.NewMinter(medtest.ContextKey, time.Now).SignGrant(token.GrantClaims{
		ID: somebodysGrant, Issuer: issuer, Subject: "the-clinician", Session: "session-1", Patient: "north-1", ReasonCode: med.ReasonOther,
		OpenedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func forgedContexts(t *testing.T, w *world) {
	state := w.fingerprint(t)
	s := w.session(t, "app")
	statements := []string{
		`select sealed from medirecord.patient`, `select sealed from medirecord.record`, `select practice_id from medirecord.blind_index`,
		`select name from medirecord.practice`, `select detail from audit.event`, `select medirecord.practice_of('north-1')`,
		`update medirecord.patient set sealed = '\x01'`,
		newPatient(""), entry(""),
	}
	for name, signed := range forged(t) {
		t.Run("a context "+name, func(t *testing.T) {
			s.enter(t, signed)
			defer s.anew(t)
			for _, sql := range statements {
				rows, touched, err := s.run(t.Context(), sql)
				if problem := refused().differs(rows, touched, err); problem != "" {
					t.Errorf("%s: %s", sql, problem)
				}
			}
			// The reading function leaves out what is no context.
			rows, touched, err := s.run(t.Context(), `select sealed from medirecord.read_patients(array[current_setting('medirecord.ctx', true)])`)
			if problem := nothing.differs(rows, touched, err); problem != "" {
				t.Errorf("the reading function: %s", problem)
			}
			if told := s.told(); len(told) > 0 {
				t.Errorf("the server told the secrets of %q", told)
			}
		})
	}
	t.Run("a context with a NUL is no text at all", func(t *testing.T) {
		for _, signed := range []string{"\x00", clinician("north", "north-1").signed(t) + "\x00"} {
			r := s.conn.PgConn().ExecParams(t.Context(), `select set_config('medirecord.ctx', $1, false)`, [][]byte{[]byte(signed)}, nil, nil, nil).Read()
			if problem := refused("22021").differs(nil, 0, r.Err); problem != "" {
				t.Error(problem)
			}
		}
	})
	t.Run("and the same under the right key is taken", func(t *testing.T) {
		s.enter(t, clinician("north", "north-1").signed(t))
		defer s.anew(t)
		rows, n, err := s.run(t.Context(), `select id from medirecord.patient`)
		if problem := only("north-1").differs(rows, n, err); problem != "" {
			t.Error(problem)
		}
	})
	if got := w.fingerprint(t); got != state {
		t.Error("the database was changed")
	}
}

// What Go verifies and what PostgreSQL verifies is the same context.
func TestGoAndPostgreSQLAgreeOnForgedContexts(t *testing.T) {
	t.Parallel()
	for name, signed := range forged(t) {
		if _, err := token.Verify([]token.ContextKey{medtest.ContextKey}, signed, time.Now()); err == nil {
			t.Errorf("token.Verify takes a context %s", name)
		}
	}
	if _, err := token.Verify([]token.ContextKey{medtest.ContextKey}, clinician("north", "north-1").signed(t), time.Now()); err != nil {
		t.Errorf("token.Verify refuses a good context: %v", err)
	}
}
