// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"

	"github.com/medirecord/medirecord/internal/siem"
)

// sinkServer is a receiver: it keeps what it took, by leaf, and misbehaves as
// it is told.
type sinkServer struct {
	t      *testing.T
	server *httptest.Server
	pool   *x509.CertPool
	verify func(r *http.Request, body []byte) error
	decode func(body []byte) (map[string]string, error) // leaf to text

	mu    sync.Mutex
	next  func(w http.ResponseWriter, r *http.Request, n int) (done bool) // what to do instead of taking
	calls int
	took  map[string]string
	twice int
	sizes []int
	at    []time.Time
}

func newSinkServer(t *testing.T, client *x509.CertPool, verify func(*http.Request, []byte) error, decode func([]byte) (map[string]string, error)) *sinkServer {
	t.Helper()
	s := &sinkServer{t: t, verify: verify, decode: decode, took: map[string]string{}, pool: x509.NewCertPool()}
	s.server = httptest.NewUnstartedServer(s)
	s.server.Config.ErrorLog = log.New(io.Discard, "", 0) // cut connections are the point
	if client != nil {
		s.server.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: client, MinVersion: tls.VersionTLS12}
	}
	s.server.StartTLS()
	t.Cleanup(func() { s.server.CloseClientConnections(); s.server.Close() })
	s.pool.AddCert(s.server.Certificate())
	return s
}

func (s *sinkServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	if err := s.verify(r, body); err != nil {
		s.t.Errorf("a request that does not verify: %v", err)
		http.Error(w, "no", http.StatusForbidden)
		return
	}
	events, err := s.decode(body)
	if err != nil {
		s.t.Errorf("a body that does not decode: %v", err)
	}
	s.mu.Lock()
	n, next := s.calls, s.next
	s.calls++
	s.sizes, s.at = append(s.sizes, len(events)), append(s.at, time.Now())
	s.mu.Unlock()
	if next != nil && next(w, r, n) {
		return
	}
	s.keep(events)
}

func (s *sinkServer) keep(events map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for leaf, text := range events {
		if was, there := s.took[leaf]; there {
			s.twice++
			if was != text {
				s.t.Errorf("leaf %s came twice and differs:\n%s\n%s", leaf, was, text)
			}
		}
		s.took[leaf] = text
	}
}

func (s *sinkServer) instead(f func(http.ResponseWriter, *http.Request, int) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next = f
}

func (s *sinkServer) all(ids []string) {
	s.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, id := range ids {
		leaf := "1/" + strconv.Itoa(i)
		if !strings.Contains(s.took[leaf], id) {
			s.t.Fatalf("leaf %s is not entry %s: %q", leaf, id, s.took[leaf])
		}
	}
	if len(s.took) != len(ids) {
		s.t.Errorf("%d leaves arrived, want %d", len(s.took), len(ids))
	}
}

var hmacKey = []byte("0123456789abcdef0123456789abcdef")

// verifySigned is what docs/operate.md tells a receiver to do.
func verifySigned(r *http.Request, body []byte) error {
	at := r.Header.Get("X-MediRecord-Timestamp")
	second, err := strconv.ParseInt(at, 10, 64)
	if err != nil || time.Since(time.Unix(second, 0)).Abs() > 5*time.Minute {
		return errors.New("too old")
	}
	m := hmac.New(sha256.New, hmacKey)
	m.Write([]byte(at + "." + string(body)))
	if !hmac.Equal([]byte("v1="+hex.EncodeToString(m.Sum(nil))), []byte(r.Header.Get("X-MediRecord-Signature"))) {
		return errors.New("the signature is wrong")
	}
	if r.Header.Get("Authorization") != "Splunk 00000000-0000-0000-0000-000000000001" {
		return errors.New("the token is wrong")
	}
	return nil
}

func decodeHEC(body []byte) (map[string]string, error) {
	out := map[string]string{}
	dec := json.NewDecoder(strings.NewReader(string(body)))
	for {
		var e struct {
			Time       float64           `json:"time"`
			SourceType string            `json:"sourcetype"`
			Event      json.RawMessage   `json:"event"`
			Fields     map[string]string `json:"fields"`
		}
		if err := dec.Decode(&e); errors.Is(err, io.EOF) {
			return out, nil
		} else if err != nil {
			return nil, err
		}
		if e.Time < 1e9 || !strings.HasPrefix(e.SourceType, "medirecord:") {
			return nil, errors.New("no event of ours")
		}
		out[e.Fields["epoch"]+"/"+e.Fields["leaf"]] = e.Fields["event_id"] + string(e.Event)
	}
}

func decodeOTLP(body []byte) (map[string]string, error) {
	var req collector.ExportLogsServiceRequest
	if err := proto.Unmarshal(body, &req); err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, r := range req.ResourceLogs[0].ScopeLogs[0].LogRecords {
		var epoch, leaf int64
		for _, a := range r.Attributes {
			switch a.Key {
			case "medirecord.audit.epoch":
				epoch = a.Value.GetIntValue()
			case "medirecord.audit.leaf":
				leaf = a.Value.GetIntValue()
			}
		}
		out[strconv.FormatInt(epoch, 10)+"/"+strconv.FormatInt(leaf, 10)] = r.Body.GetStringValue()
	}
	return out, nil
}

func verifyOTLP(r *http.Request, _ []byte) error {
	if r.Method != http.MethodPost || r.URL.Path != "/v1/logs" || r.Header.Get("Content-Type") != "application/x-protobuf" || len(r.TLS.PeerCertificates) == 0 {
		return errors.New("not OTLP/HTTP with our certificate")
	}
	return nil
}

// TestPostsLoseNothing: receivers that cut, refuse, hang and lie get everything
// in the end.
func TestPostsLoseNothing(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	cert, _, _ := a.issue(t, "medirecord-stream")
	for _, kind := range []Kind{HTTPS, OTLP} {
		t.Run(string(kind), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			sink := Sink{Name: "siem", Kind: kind, Format: siem.FHIR, Batch: 100}
			var r *sinkServer
			if kind == HTTPS {
				r = newSinkServer(t, nil, verifySigned, decodeHEC)
				sink.Address, sink.HMACKey, sink.Token = r.server.URL+"/services/collector/event", hmacKey, "00000000-0000-0000-0000-000000000001"
			} else {
				r = newSinkServer(t, a.pool, verifyOTLP, decodeOTLP)
				sink.Address, sink.Certificate = r.server.URL+"/v1/logs", reading(cert)
			}
			sink.RootCAs = r.pool
			rng := rand.New(rand.NewPCG(1, uint64(len(kind)))) //nolint:gosec // a test's own misfortune, the same each time
			r.instead(func(w http.ResponseWriter, req *http.Request, n int) bool {
				r.mu.Lock()
				what := rng.IntN(24)
				r.mu.Unlock()
				if n < 7 {
					what = n
				}
				switch what {
				case 0:
					http.Error(w, "failing", http.StatusInternalServerError)
				case 1:
					panic(http.ErrAbortHandler) // the connection is cut without an answer
				case 2:
					w.Header().Set("Retry-After", "0")
					http.Error(w, "slow down", http.StatusTooManyRequests)
				case 3:
					select { // hangs
					case <-req.Context().Done():
					case <-time.After(10 * time.Second):
					}
				case 4:
					http.Redirect(w, req, "https://elsewhere.invalid/", http.StatusTemporaryRedirect)
				case 5:
					w.Header().Set("Content-Type", "application/json") // lies: 200, and not taken
					if kind == HTTPS {
						_, _ = io.WriteString(w, `{"text":"Invalid data format","code":6}`)
						return true
					}
					b, _ := proto.Marshal(&collector.ExportLogsServiceResponse{PartialSuccess: &collector.ExportLogsPartialSuccess{RejectedLogRecords: 1}})
					_, _ = w.Write(b)
				default:
					return false
				}
				return true
			})
			cfg := w.config(sink)
			cfg.Wait = 2 * time.Second
			w.seal(t, 1, 1500)
			s, _ := run(t, cfg)
			await(t, "some failures", func() bool { return s.Stats()[0].Failures >= 6 })
			w.seal(t, 1, 700)
			await(t, "everything to be taken", func() bool { return w.caughtUp(t, "siem") })
			r.all(w.ids[1])
			await(t, "the figures to say so", func() bool { st := s.Stats()[0]; return st.Taken >= 2200 && st.Code == "" })
			if st := s.Stats()[0]; st.Taken != 2200 || st.Failures < 6 {
				t.Errorf("got %+v", st)
			}
		})
	}
}

// TestAnAnswerThatIsLostSendsTwice: what was taken without our knowing comes
// again, and is the same.
func TestAnAnswerThatIsLostSendsTwice(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := newSinkServer(t, nil, verifySigned, decodeHEC)
	var once sync.Once
	verify := r.decode
	r.decode = func(b []byte) (map[string]string, error) {
		events, err := verify(b)
		once.Do(func() {
			r.keep(events)
			r.instead(func(http.ResponseWriter, *http.Request, int) bool { r.instead(nil); panic(http.ErrAbortHandler) })
		})
		return events, err
	}
	w.seal(t, 1, 30)
	run(t, w.config(Sink{
		Name: "siem", Kind: HTTPS, Format: siem.ATNA, Address: r.server.URL, RootCAs: r.pool, HMACKey: hmacKey, Token: "00000000-0000-0000-0000-000000000001",
	}))
	await(t, "everything to be taken", func() bool { return w.caughtUp(t, "siem") })
	r.all(w.ids[1])
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.twice != 30 {
		t.Errorf("%d came twice, want 30", r.twice)
	}
}

// TestRetryAfterIsKept: a receiver that says when is not asked before.
func TestRetryAfterIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := newSinkServer(t, nil, verifySigned, decodeHEC)
	r.instead(func(w http.ResponseWriter, _ *http.Request, n int) bool {
		if n > 0 {
			return false
		}
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
		return true
	})
	w.seal(t, 1, 1)
	run(t, w.config(Sink{Name: "siem", Kind: HTTPS, Format: siem.MediRecord, Address: r.server.URL, RootCAs: r.pool, HMACKey: hmacKey, Token: "00000000-0000-0000-0000-000000000001"}))
	await(t, "the entry to be taken", func() bool { return w.caughtUp(t, "siem") })
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.at) != 2 || r.at[1].Sub(r.at[0]) < time.Second {
		t.Errorf("calls at %v, want two, a second apart", r.at)
	}
}

// TestOneEntryThatIsRefusedHoldsUpOnlyItself: what stands before it arrives, the
// failure names it, and an operator can go past it.
func TestOneEntryThatIsRefusedHoldsUpOnlyItself(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.seal(t, 1, 100)
	poison := w.ids[1][37]
	r := newSinkServer(t, nil, verifySigned, nil)
	r.decode = func(b []byte) (map[string]string, error) {
		r.instead(func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			if strings.Contains(string(b), poison) {
				http.Error(w, "no", http.StatusBadRequest)
				return true
			}
			return false
		})
		return decodeHEC(b)
	}
	s, _ := run(t, w.config(Sink{Name: "siem", Kind: HTTPS, Format: siem.MediRecord, Address: r.server.URL, RootCAs: r.pool, HMACKey: hmacKey, Token: "00000000-0000-0000-0000-000000000001"}))
	await(t, "all before the refused entry to be taken", func() bool { return w.progress(t, "siem").Next == 37 })
	await(t, "the failure to name its place", func() bool { return w.progress(t, "siem").LastError == "status_400" && w.log.has(`"leaf":0`) })
	if p := w.progress(t, "siem"); p.Behind != 63 || s.Stats()[0].Code != "status_400" {
		t.Errorf("got %+v, %+v", p, s.Stats()[0])
	}
	migrator := w.db.As(t, "migrator")
	if _, err := migrator.Exec(t.Context(), `select audit.rewind_sink('siem', 1, 38)`); err != nil {
		t.Fatal(err)
	}
	await(t, "the rest to be taken", func() bool { return w.caughtUp(t, "siem") })
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.took) != 99 || r.took["1/37"] != "" {
		t.Errorf("%d arrived, want all but the refused one", len(r.took))
	}
}
