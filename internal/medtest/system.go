// SPDX-License-Identifier: Apache-2.0

package medtest

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/medirecord/medirecord/coresdk"
	"github.com/medirecord/medirecord/internal/auth"
	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/httpapi"
	"github.com/medirecord/medirecord/internal/keystore"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/outbound"
	"github.com/medirecord/medirecord/internal/policy"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/sidecar"
	"github.com/medirecord/medirecord/internal/token"
	"github.com/medirecord/medirecord/internal/trail"
)

// North and South are the practices of every test system.
const (
	North med.PracticeID = "north"
	South med.PracticeID = "south"
)

// Patience is what the parts of a test system have for each thing they do, where
// a served one has a second or two: on a machine that is busy with other things,
// and whose disk is, an answer in time is chance. A test of a deadline sets its own.
const Patience = 30 * time.Second

// Options change what a system is made with.
type Options struct {
	Trail    trail.Config  // URL and Log are filled in
	Deadline time.Duration // of the clinical database; Patience when 0
	KeyCache time.Duration
	// StrictReads: every read against a ticket of the trail, not broken glass only.
	StrictReads bool
	// Policy is the sidecar's, builtin:hospital for one; medirecord.rego without it.
	Policy string
	// Unsettled is how many minted contexts the sidecar keeps for the worker.
	Unsettled int
	Effort    *Effort          // counts what the system does, from its start
	Now       func() time.Time // of the door and the API; the sidecar and the database keep real time
}

// System is a whole MediRecord in this process, on databases of its own.
type System struct {
	DB       *Databases
	Postgres *postgres.DB
	Trail    *trail.Trail
	Keys     *keystore.Store
	Keeper   string // folder of the key keeper
	Gate     *gate.Gate
	Chart    *chart.Service
	Server   *httptest.Server
	Sidecar  *sidecar.Server
	Service  *sidecar.Service
	Log      *Log
	// Forged says that the test wrote entries that no honest API would: CheckTrail
	// does not hold them against contexts and parents.
	Forged bool

	now  func() time.Time
	key  *ecdsa.PrivateKey
	mu   sync.Mutex
	seen []Seen
	phi  []string
}

// Seen is an answer that the system gave over HTTP.
type Seen struct {
	Status int
	Event  string
	Path   string
}

// Log is what the system logged.
type Log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

const (
	issuer   = "https://issuer.test.invalid"
	audience = "medirecord"
)

// Service tokens of the test system.
var serviceTokens = map[string]string{"import": "import-token", "operator": "operator-token", "worker": "worker-token"}

// New starts a system with two practices. At the end of the test its trail is
// checked.
func New(t testing.TB, opts ...Options) *System {
	t.Helper()
	var o Options
	if len(opts) > 0 {
		o = opts[0]
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	s := &System{DB: DB(t), Log: &Log{}, now: o.Now}
	t.Cleanup(func() { // runs after everything below has closed
		if !t.Failed() && !t.Skipped() {
			s.CheckTrail(t)
		}
	})
	log := slog.New(slog.NewJSONHandler(s.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	addr := s.startSidecar(t, log, o)
	s.Gate = s.OpenGate(t, addr, "")
	var err error
	ctx := context.WithoutCancel(t.Context())
	if s.Postgres, err = postgres.Open(ctx, postgres.Config{URL: o.Effort.tap(t, s.DB.URL("app")), Conns: 6, Deadline: cmp.Or(o.Deadline, Patience)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Postgres.Close)
	tc := o.Trail
	tc.URL, tc.Log, tc.Now, tc.Deadline = o.Effort.tap(t, s.DB.URL("trail")), log, o.Now, cmp.Or(tc.Deadline, Patience)
	if s.Trail, err = trail.Open(ctx, tc); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Trail.Close)
	s.Keeper = filepath.Join(t.TempDir(), "keeper")
	keeper, err := envelope.InitFileKeeper(s.Keeper)
	if err != nil {
		t.Fatal(err)
	}
	keeper.Timeout = Patience
	if s.Keys, err = keystore.Open(ctx, keystore.Config{
		URL: o.Effort.tap(t, s.DB.KeysURL("keys")), Keeper: countedKeeper{keeper, o.Effort}, PatientTTL: o.KeyCache, PracticeTTL: o.KeyCache, Deadline: Patience,
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Keys.Close)
	if s.Chart, err = chart.New(chart.Config{Gate: s.Gate, DB: s.Postgres, Keys: s.Keys, Trail: s.Trail, Log: log, Now: o.Now}); err != nil {
		t.Fatal(err)
	}
	api, err := httpapi.New(httpapi.Config{
		Auth: auth.New(s.Gate, s.Trail, time.Now), Chart: s.Chart, Log: log, Now: time.Now, Version: "test", Timeout: 2 * Patience,
		Ready: func(context.Context) []httpapi.Check { return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Server = httptest.NewUnstartedServer(nil)
	s.Server.Config, s.Server.Listener = api.HTTPServer(ctx, api), api.Listener(s.Server.Listener)
	s.Server.Start()
	t.Cleanup(s.Server.Close)
	operator := s.Door(t, "operator")
	for _, p := range []med.PracticeID{North, South} {
		if err := operator.AddPractice(t.Context(), chart.Operator("test"), p, "Practice "+string(p)); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *System) startSidecar(t testing.TB, log *slog.Logger, o Options) string {
	t.Helper()
	var err error
	if s.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		t.Fatal(err)
	}
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: s.key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	jwks := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(set) }))
	t.Cleanup(jwks.Close)
	client := outbound.New(outbound.Config{Dev: true})
	verifier, err := token.NewVerifier(token.Config{
		Issuers: []token.Issuer{{Issuer: issuer, Audience: audience, JWKS: jwks.URL}}, Get: client.Get, Now: time.Now, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(verifier.Close)
	Fetch(t, verifier)
	services := map[string][32]byte{}
	for name, tok := range serviceTokens {
		services[name] = sha256.Sum256([]byte(tok))
	}
	engine := Policy(t)
	if o.Policy != "" {
		engine = policyAt(t, o.Policy)
	}
	s.Service, err = sidecar.New(sidecar.Config{
		Verifier: verifier, Policy: func() *policy.Engine { o.Effort.add("sidecar: question", 1); return engine }, Minter: token.NewMinter(ContextKey, time.Now), Attester: token.NewAttester([]token.ContextKey{ContextKey}),
		State: filepath.Join(t.TempDir(), "state.jsonl"), Services: services, StrictReads: o.StrictReads, Unsettled: o.Unsettled, Log: log, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Service.Close() })
	s.Sidecar, err = s.Service.Listening(context.WithoutCancel(t.Context()), sidecar.Listen{Addrs: []string{"127.0.0.1:0"}, Dev: true})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Sidecar.Serve() }()
	t.Cleanup(func() { s.Sidecar.Stop(); <-done })
	return s.Sidecar.Addrs()[0].String()
}

// Fetch waits until the verifier has the issuers' keys. The first to show a token
// would wait for them a quarter of a second and then be refused.
func Fetch(t testing.TB, v *token.Verifier) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 2*Patience)
	defer cancel()
	for {
		_, err := v.JWKS(ctx)
		if err == nil {
			return
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			t.Fatal(err)
		}
	}
}

// engine is the built-in policy, compiled once for each test process.
var engine = sync.OnceValues(func() (*policy.Engine, error) {
	src, err := policy.Embedded()
	if err != nil {
		return nil, err
	}
	return policy.Load(context.Background(), src)
})

// Policy returns the built-in policy.
func Policy(t testing.TB) *policy.Engine {
	t.Helper()
	e, err := engine()
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// policyAt returns the policy at a path, as a sidecar would load it.
func policyAt(t testing.TB, path string) *policy.Engine {
	t.Helper()
	src, err := policy.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	e, err := policy.Load(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// OpenGate opens a gate to the sidecar, as a service when one is named.
func (s *System) OpenGate(t testing.TB, addr, service string) *gate.Gate {
	t.Helper()
	g, err := gate.Open(context.WithoutCancel(t.Context()), coresdk.Config{
		Addr: addr, Dev: true, ServiceToken: coresdk.Secret(serviceTokens[service]), Timeout: Patience, ConnectTimeout: Patience,
	}, s.now)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

// Door returns the door as a service enters it: import, operator, worker.
func (s *System) Door(t testing.TB, service string) *chart.Service {
	t.Helper()
	g := s.OpenGate(t, s.Sidecar.Addrs()[0].String(), service)
	c, err := chart.New(chart.Config{Gate: g, DB: s.Postgres, Keys: s.Keys, Trail: s.Trail, Now: time.Now})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Patient imports a patient into the practice and returns their id. Their
// texts are PHI that must appear nowhere in the clear.
func (s *System) Patient(t testing.TB, practice med.PracticeID, p med.Patient, records ...med.Record) med.PatientID {
	t.Helper()
	if p.SourceID == "" {
		p.SourceID = med.PHI("source-" + string(p.ID) + med.NewUUID(time.Now()))
	}
	done, err := s.Door(t, "import").Import(t.Context(), chart.Importer("test"), practice, chart.Bundle{
		Patient: p, Records: records, Hash: sha256.Sum256([]byte(p.SourceID.Reveal())),
	})
	if err != nil {
		t.Fatal(err)
	}
	s.Secret(p.Name.Text, p.Name.Family, p.SSN, p.DOB, p.Diagnosis, p.MRN)
	return done.Patient
}

// Secret notes texts that must not be found in the trail or the log.
func (s *System) Secret(texts ...med.PHI) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range texts {
		if len(p) >= 4 {
			s.phi = append(s.phi, p.Reveal())
		}
	}
}

// Alice is the guide's patient.
func Alice() med.Patient {
	return med.Patient{
		Name: med.Name{Family: "Smith", Given: []med.PHI{"Alice"}, Text: "Alice Smith"}, SSN: "123-45-6789", DOB: "1985-06-15",
		Diagnosis: "Essential hypertension", MRN: "MRN-000001", Sex: "female", Phone: "555-010-0001", Email: "alice@patients.example",
		Insurance: med.Insurance{Payer: "Evergreen Mutual", MemberID: "M10000001"},
	}
}

// Claims of a token; nil values are left out.
type Claims map[string]any

// Token signs a token. Unless the claims say otherwise it is valid now, with
// MFA done now.
func (s *System) Token(t testing.TB, claims Claims) string {
	t.Helper()
	now := time.Now()
	all := Claims{
		"iss": issuer, "aud": audience, "sub": "somebody", "iat": now.Unix(), "exp": now.Add(time.Hour).Unix(), "auth_time": now.Unix(),
		"jti": med.NewUUID(now), "sid": med.NewUUID(now), "mfa_verified": true,
	}
	for k, v := range claims {
		if v == nil {
			delete(all, k)
		} else {
			all[k] = v
		}
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: s.key, KeyID: "k1"}}, (&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	text, err := signed.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Of returns a token of somebody with the role in the practice.
func (s *System) Of(t testing.TB, role med.Role, practice med.PracticeID) string {
	t.Helper()
	c := Claims{"sub": "the-" + string(role), "roles": []string{string(role)}}
	if practice != "" {
		c["practice_id"] = string(practice)
	}
	return s.Token(t, c)
}

// PatientOf returns a token of the patient themselves.
func (s *System) PatientOf(t testing.TB, id med.PatientID, practice med.PracticeID) string {
	t.Helper()
	return s.Token(t, Claims{"sub": "patient-" + string(id), "roles": []string{"patient"}, "practice_id": string(practice), "patient_id": string(id)})
}

// Caller returns who a token speaks for, as the API would see them.
func (s *System) Caller(t testing.TB, tok string) med.Caller {
	t.Helper()
	c, err := s.Gate.Who(t.Context(), med.Credential(tok))
	if err != nil {
		t.Fatal(err)
	}
	c.Origin = med.Origin{IP: "192.0.2.1", RequestID: med.NewUUID(time.Now())}
	return c
}

// Answer is an HTTP answer.
type Answer struct {
	Status int
	Header http.Header
	Body   string
}

// Get asks the API. Header pairs follow the path.
func (s *System) Get(t testing.TB, tok, path string, header ...string) Answer {
	t.Helper()
	return s.ask(t, http.MethodGet, tok, path, nil, header...)
}

// Post sends JSON to the API. Header pairs follow the body.
func (s *System) Post(t testing.TB, tok, path, body string, header ...string) Answer {
	t.Helper()
	return s.ask(t, http.MethodPost, tok, path, strings.NewReader(body), append([]string{"Content-Type", "application/json"}, header...)...)
}

// Delete asks the API to. Header pairs follow the path.
func (s *System) Delete(t testing.TB, tok, path string, header ...string) Answer {
	t.Helper()
	return s.ask(t, http.MethodDelete, tok, path, nil, header...)
}

// Do is Post by another method; without a body it sends none.
func (s *System) Do(t testing.TB, method, tok, path, body string, header ...string) Answer {
	t.Helper()
	if body == "" {
		return s.ask(t, method, tok, path, nil, header...)
	}
	return s.ask(t, method, tok, path, strings.NewReader(body), append([]string{"Content-Type", "application/merge-patch+json"}, header...)...)
}

func (s *System) ask(t testing.TB, method, tok, path string, body io.Reader, header ...string) Answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.Server.URL+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if tok != "" {
		req.Header.Set("Authorization", "Bearer "+tok)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.Server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, Seen{resp.StatusCode, resp.Header.Get("Audit-Event-Id"), path})
	return Answer{resp.StatusCode, resp.Header, string(b)}
}
