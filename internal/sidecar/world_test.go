// SPDX-License-Identifier: Apache-2.0

package sidecar_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/outbound"
	"github.com/medirecord/medirecord/internal/policy"
	"github.com/medirecord/medirecord/internal/sidecar"
	"github.com/medirecord/medirecord/internal/token"
	coresdkv1 "github.com/medirecord/medirecord/proto/coresdk/v1"
	pb "github.com/medirecord/medirecord/proto/medirecord/v1"
)

const (
	issuer   = "https://issuer.test.invalid"
	audience = "medirecord"
)

// serviceTokens by service.
var serviceTokens = map[string]string{"import": "import-token", "operator": "operator-token", "worker": "worker-token"}

// clock is real time, moved.
type clock struct{ ahead atomic.Int64 }

func (c *clock) Now() time.Time             { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *clock) advance(d time.Duration)    { c.ahead.Add(int64(d)) }
func (c *clock) unix(d time.Duration) int64 { return c.Now().Add(d).Unix() }

// world is a sidecar that listens, an issuer that it knows, and who asks it.
type world struct {
	options
	clock   *clock
	key     *ecdsa.PrivateKey
	jwks    *httptest.Server
	silence atomic.Bool // the issuer accepts and does not answer
	waiting atomic.Bool // somebody waits for it, or did until
	gaveUp  atomic.Int64
	service *sidecar.Service
	server  *sidecar.Server
	addr    string
	conn    *grpc.ClientConn
	auth    coresdkv1.AuthServiceClient
	policy  coresdkv1.PolicyServiceClient
	gate    pb.GateServiceClient
	engine  atomic.Pointer[policy.Engine]
	state   string
	log     *journal

	mu     sync.Mutex
	secret []string
}

type options struct {
	unsettled, patients int
	grantFor            time.Duration
	strict              bool
	home                med.PracticeID // the practice of tokens without one, while it is the only one
	engine              func() *policy.Engine
}

// journal is what was logged.
type journal struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.b.String()
}

// start starts a world. At its end its log is searched for the tokens it saw.
func start(t *testing.T, o options) *world {
	t.Helper()
	w := &world{options: o, clock: &clock{}, state: filepath.Join(t.TempDir(), "state.jsonl"), log: &journal{}}
	var err error
	w.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	noError(t, err)
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: w.key.Public(), KeyID: "k1", Algorithm: "ES256", Use: "sig"}}})
	noError(t, err)
	w.jwks = httptest.NewServer(http.HandlerFunc(func(a http.ResponseWriter, r *http.Request) {
		if w.silence.Load() {
			w.waiting.Store(true)
			<-r.Context().Done()
			w.gaveUp.Store(time.Now().UnixMilli())
			return
		}
		_, _ = a.Write(set)
	}))
	t.Cleanup(w.jwks.Close)
	w.engine.Store(medtest.Policy(t))
	w.open(t)
	t.Cleanup(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, s := range w.secret {
			if strings.Contains(w.log.String(), s) {
				t.Error("the log holds a token")
			}
		}
	})
	return w
}

// open starts the sidecar on the world's state file.
func (w *world) open(t *testing.T) {
	t.Helper()
	log := slog.New(slog.NewJSONHandler(w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	client := outbound.New(outbound.Config{Dev: true})
	var service atomic.Pointer[sidecar.Service]
	verifier, err := token.NewVerifier(token.Config{
		Issuers: []token.Issuer{{Issuer: issuer, Audience: audience, JWKS: w.jwks.URL}}, Get: client.Get, Now: w.clock.Now, Log: log,
		FetchInterval: time.Millisecond,
		DefaultPractice: func() med.PracticeID {
			if s := service.Load(); s != nil {
				return s.OnlyPractice(w.home)
			}
			return ""
		},
	})
	noError(t, err)
	t.Cleanup(verifier.Close)
	medtest.Fetch(t, verifier)
	services := map[string][32]byte{}
	for name, tok := range serviceTokens {
		services[name] = sha256.Sum256([]byte(tok))
	}
	engine := w.options.engine
	if engine == nil {
		engine = w.engine.Load
	}
	w.service, err = sidecar.New(sidecar.Config{
		Verifier: verifier, Policy: engine, Minter: token.NewMinter(medtest.ContextKey, w.clock.Now), State: w.state,
		Attester: token.NewAttester([]token.ContextKey{medtest.ContextKey}), Unsettled: w.unsettled, PatientsAnHour: w.patients,
		Services: services, GrantFor: w.grantFor, StrictReads: w.strict, Log: log, Now: w.clock.Now,
	})
	noError(t, err)
	service.Store(w.service)
	t.Cleanup(func() { _ = w.service.Close() })
	w.server = listening(t, w.service, sidecar.Listen{Addrs: []string{"127.0.0.1:0"}, Dev: true})
	w.addr = w.server.Addrs()[0].String()
	w.conn = connect(t, w.addr, "")
	w.auth, w.policy, w.gate = coresdkv1.NewAuthServiceClient(w.conn), coresdkv1.NewPolicyServiceClient(w.conn), pb.NewGateServiceClient(w.conn)
}

// restart is a kill and another start: nothing is closed in an orderly way.
func (w *world) restart(t *testing.T) {
	t.Helper()
	w.server.Stop()
	w.open(t)
}

// listening serves until the test ends.
func listening(t *testing.T, s *sidecar.Service, l sidecar.Listen) *sidecar.Server {
	t.Helper()
	srv, err := s.Listening(t.Context(), l)
	noError(t, err)
	done := make(chan error, 1)
	go func() { done <- srv.Serve() }()
	t.Cleanup(func() { srv.Stop(); <-done }) //nolint:errcheck // the test's own server
	return srv
}

// connect is a client that is not the SDK: plain generated stubs.
func connect(t *testing.T, addr, serviceToken string) *grpc.ClientConn {
	t.Helper()
	opts := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if serviceToken != "" {
		opts = append(opts, grpc.WithPerRPCCredentials(metadataOf{"x-service-token": serviceToken}))
	}
	conn, err := grpc.NewClient("passthrough:///"+addr, opts...)
	noError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// metadataOf goes with every call.
type metadataOf map[string]string

func (m metadataOf) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return m, nil
}
func (metadataOf) RequireTransportSecurity() bool { return false }

// claims of a token; nil values are left out.
type claims map[string]any

// token signs one that is valid now, with MFA done now, unless told otherwise.
func (w *world) token(t *testing.T, c claims) string {
	t.Helper()
	return w.signed(t, w.key, jose.ES256, c)
}

func (w *world) signed(t *testing.T, key any, alg jose.SignatureAlgorithm, c claims) string {
	t.Helper()
	all := claims{
		"iss": issuer, "aud": audience, "sub": "somebody", "iat": w.clock.unix(0), "exp": w.clock.unix(time.Hour), "auth_time": w.clock.unix(0),
		"jti": med.NewUUID(time.Now()), "sid": med.NewUUID(time.Now()), "mfa_verified": true, "roles": []string{"clinician"}, "practice_id": "north",
	}
	for k, v := range c {
		if v == nil {
			delete(all, k)
		} else {
			all[k] = v
		}
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: alg, Key: jose.JSONWebKey{Key: key, KeyID: "k1"}}, (&jose.SignerOptions{}).WithType("JWT"))
	noError(t, err)
	payload, err := json.Marshal(all)
	noError(t, err)
	s, err := signer.Sign(payload)
	noError(t, err)
	text, err := s.CompactSerialize()
	noError(t, err)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.secret = append(w.secret, text, text[strings.LastIndexByte(text, '.'):])
	return text
}

// of is a token of somebody with the role in north.
func (w *world) of(t *testing.T, role med.Role) string {
	t.Helper()
	return w.token(t, claims{"sub": "the-" + string(role), "roles": []string{string(role)}})
}

// ask asks all questions in one message and returns the answers by id.
func (w *world) ask(t *testing.T, qs ...*pb.Question) map[uint64]*pb.Answer {
	t.Helper()
	return askOn(t, w.gate, qs...)
}

func askOn(t *testing.T, g pb.GateServiceClient, qs ...*pb.Question) map[uint64]*pb.Answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	stream, err := g.Ask(ctx)
	noError(t, err)
	noError(t, stream.Send(&pb.Questions{Questions: qs}))
	m, err := stream.Recv()
	noError(t, err)
	noError(t, stream.CloseSend())
	out := map[uint64]*pb.Answer{}
	for _, a := range m.GetAnswers() {
		if out[a.GetId()] != nil {
			t.Errorf("question %d was answered twice", a.GetId())
		}
		out[a.GetId()] = a
	}
	return out
}

// one asks one question.
func (w *world) one(t *testing.T, q *pb.Question) *pb.Answer {
	t.Helper()
	q.Id = 7
	a := w.ask(t, q)[7]
	if a == nil {
		t.Fatal("no answer with the question's id")
	}
	return a
}

func who(tok string) *pb.Question {
	return &pb.Question{Ask: &pb.Question_Who{Who: &pb.Who{Token: tok}}}
}

// may asks about reading a patient.
func may(tok, patient string) *pb.Question {
	return &pb.Question{Ask: &pb.Question_May{May: &pb.May{Token: tok, Action: "read", ResourceType: "patient", PatientId: patient}}}
}

// emergency is may with a break-glass reason.
func emergency(tok, patient string) *pb.Question {
	q := may(tok, patient)
	q.GetMay().Emergency = &pb.Emergency{ReasonCode: med.ReasonOther}
	return q
}

func serveQ(action, practice string) *pb.Question {
	return &pb.Question{Ask: &pb.Question_Serve{Serve: &pb.Serve{Action: action, PracticeId: practice}}}
}

// refusedWith checks that the answer is a refusal and nothing else.
func refusedWith(t *testing.T, a *pb.Answer, code, detail string) {
	t.Helper()
	r := a.GetRefusal()
	if r == nil {
		t.Fatalf("got %v, want the refusal %s (%s)", a, code, detail)
	}
	if r.GetCode() != code || r.GetDetail() != detail {
		t.Errorf("got the refusal %s (%s), want %s (%s)", r.GetCode(), r.GetDetail(), code, detail)
	}
}

// contextOf opens the ruling's context as PostgreSQL would.
func contextOf(t *testing.T, w *world, r *pb.Ruling) token.Context {
	t.Helper()
	c, err := token.Verify([]token.ContextKey{medtest.ContextKey}, r.GetContext(), w.clock.Now())
	noError(t, err)
	return c
}

func noError(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// eventually waits for the thing itself.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !is(); {
		if time.Now().After(end) {
			t.Fatal("did not happen: " + what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}
