// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/prometheus/client_golang/prometheus"
)

const (
	requestID = "018f0000-0000-7000-8000-000000000001"
	eventID   = "018f0000-0000-7000-8000-0000000000e1"
)

// doorkeeper is the Authenticator of these tests: it knows tokens.
type doorkeeper struct {
	callers map[string]med.Caller
	err     error
	boom    any
}

func (d *doorkeeper) Authenticate(_ context.Context, header []string, from med.Origin) (med.Caller, error) {
	if d.boom != nil {
		panic(d.boom)
	}
	if d.err != nil {
		return med.Caller{}, d.err
	}
	if len(header) != 1 {
		return med.Caller{}, med.Unauthorized.New("")
	}
	c, ok := d.callers[strings.TrimPrefix(header[0], "Bearer ")]
	if !ok {
		return med.Caller{}, med.Unauthorized.New("")
	}
	c.Origin = from
	return c, nil
}

// ward is the Chart of these tests: it gives back what it is told and remembers
// who asked.
type ward struct {
	read func(ctx context.Context, c med.Caller, id med.PatientID, _ ...med.Field) (*med.PatientView, error)
	log  func(ctx context.Context, c med.Caller, id med.PatientID, limit int) ([]med.AccessEvent, med.EventID, error)
	// trail is asked by both routes of the trail, for a user or for "".
	trail    func(user string, q med.TrailQuery) (*med.TrailPage, error)
	accesses func(id med.PatientID, p med.Page) (*med.AccessPage, error)

	// What is told and asked of disclosures.
	recorded   med.Disclosure
	amendment  med.Amendment
	accounting *med.Accounting
	accountAsk med.AccountingAsk

	// What is to become of a patient.
	patch      med.Patch
	once       med.Once
	seen       string
	by         string // what a search is by, and for
	probe      med.Patient
	recordAsk  med.RecordAsk
	recordPage med.Page

	mu    sync.Mutex
	asked []med.Caller
}

func (w *ward) RecordDisclosure(_ context.Context, c med.Caller, _ med.PatientID, d med.Disclosure, o med.Once) (*med.Disclosure, error) {
	w.remember(c)
	w.recorded, w.once = d, o
	return &med.Disclosure{ID: "018f0000-0000-7000-8000-0000000000d1", Version: 1, Event: eventID}, nil
}

func (w *ward) AmendDisclosure(_ context.Context, c med.Caller, _ med.PatientID, which med.DisclosureID, change med.Amendment) (*med.Disclosure, error) {
	w.remember(c)
	w.amendment = change
	return &med.Disclosure{ID: which, Version: 2, Event: eventID}, nil
}

func (w *ward) AddTreatment(_ context.Context, c med.Caller, t med.Treatment, o med.Once) (*med.Treatment, error) {
	w.remember(c)
	w.once = o
	t.ID, t.Event = "018f0000-0000-7000-8000-0000000000a1", eventID
	return &t, nil
}

func (w *ward) EndTreatment(_ context.Context, c med.Caller, _ med.TreatmentKind, _ med.PatientID, _ med.TreatmentID) (med.EventID, error) {
	w.remember(c)
	return eventID, nil
}

func (w *ward) Treatments(_ context.Context, c med.Caller, _ med.TreatmentQuery) (*med.TreatmentPage, error) {
	w.remember(c)
	return &med.TreatmentPage{Event: eventID}, nil
}

func (w *ward) ReadAccounting(_ context.Context, c med.Caller, _ med.PatientID, ask med.AccountingAsk) (*med.Accounting, error) {
	w.remember(c)
	w.accountAsk = ask
	return w.accounting, nil
}

func (w *ward) OpenGlass(_ context.Context, c med.Caller, id med.PatientID, code string, reason med.PHI) (*med.Glass, error) {
	w.remember(c)
	return &med.Glass{ID: glassID, Patient: id, ReasonCode: code, Reason: reason, Event: eventID}, nil
}

func (w *ward) ListGlass(_ context.Context, c med.Caller, _ med.GlassQuery) (*med.GlassPage, error) {
	w.remember(c)
	return &med.GlassPage{Event: eventID}, nil
}

func (w *ward) ReadGlass(_ context.Context, c med.Caller, id med.GlassID) (*med.Glass, error) {
	w.remember(c)
	return &med.Glass{ID: id, Event: eventID}, nil
}

func (w *ward) EndGlass(ctx context.Context, c med.Caller, id med.GlassID) (*med.Glass, error) {
	return w.ReadGlass(ctx, c, id)
}

func (w *ward) ReviewGlass(ctx context.Context, c med.Caller, id med.GlassID, _ string, _ med.PHI) (*med.Glass, error) {
	return w.ReadGlass(ctx, c, id)
}

const glassID = "018f0000-0000-7000-8000-0000000000e1"

func (w *ward) ReadPatient(ctx context.Context, c med.Caller, id med.PatientID, want ...med.Field) (*med.PatientView, error) {
	w.remember(c)
	return w.read(ctx, c, id, want...)
}

func (w *ward) CreatePatient(_ context.Context, c med.Caller, p med.Patch, o med.Once) (*med.PatientView, error) {
	w.remember(c)
	w.patch, w.once = p, o
	return alice(), nil
}

func (w *ward) UpdatePatient(_ context.Context, c med.Caller, _ med.PatientID, seen string, p med.Patch) (*med.PatientView, error) {
	w.remember(c)
	w.patch, w.seen = p, seen
	return alice(), nil
}

func (w *ward) DeletePatient(_ context.Context, c med.Caller, _ med.PatientID, seen string) (med.EventID, error) {
	w.remember(c)
	w.seen = seen
	return eventID, nil
}

func (w *ward) RestorePatient(_ context.Context, c med.Caller, _ med.PatientID) (*med.PatientView, error) {
	w.remember(c)
	return alice(), nil
}

func (w *ward) ListPatients(_ context.Context, c med.Caller, _ med.Page) (*med.PatientPage, error) {
	w.remember(c)
	return &med.PatientPage{Patients: []*med.PatientView{alice()}, Event: eventID}, nil
}

func (w *ward) SearchPatients(_ context.Context, c med.Caller, by string, probe med.Patient) (*med.PatientPage, error) {
	w.remember(c)
	w.by, w.probe = by, probe
	return &med.PatientPage{Patients: []*med.PatientView{alice()}, Event: eventID}, nil
}

func (w *ward) LookUp(_ context.Context, c med.Caller, _ med.LookupAsk) (*med.Lookup, error) {
	w.remember(c)
	return &med.Lookup{Candidates: []med.Candidate{{ID: "p-001", Name: alice().Name, DOB: alice().DOB}}, Event: eventID}, nil
}

func (w *ward) CreateRecord(_ context.Context, c med.Caller, _ med.PatientID, p med.Patch, o med.Once) (*med.RecordView, error) {
	w.remember(c)
	w.patch, w.once = p, o
	return aRecord(), nil
}

func (w *ward) ReadRecord(_ context.Context, c med.Caller, _ med.PatientID, _ med.RecordID) (*med.RecordView, error) {
	w.remember(c)
	return aRecord(), nil
}

func (w *ward) ReadRecords(_ context.Context, c med.Caller, _ med.PatientID, ask med.RecordAsk, p med.Page) (*med.RecordPage, error) {
	w.remember(c)
	w.recordAsk, w.recordPage = ask, p
	return &med.RecordPage{Records: []med.RecordView{*aRecord()}, Next: "further", Event: eventID}, nil
}

func (w *ward) ReadVersions(_ context.Context, c med.Caller, _ med.PatientID, _ med.RecordID) (*med.RecordPage, error) {
	w.remember(c)
	return &med.RecordPage{Records: []med.RecordView{*aRecord()}, Event: eventID}, nil
}

func (w *ward) UpdateRecord(_ context.Context, c med.Caller, _ med.PatientID, _ med.RecordID, seen string, p med.Patch) (*med.RecordView, error) {
	w.remember(c)
	w.patch, w.seen = p, seen
	return aRecord(), nil
}

func (w *ward) DeleteRecord(_ context.Context, c med.Caller, _ med.PatientID, _ med.RecordID, seen string) (med.EventID, error) {
	w.remember(c)
	w.seen = seen
	return eventID, nil
}

func (w *ward) ReadAccessLog(ctx context.Context, c med.Caller, id med.PatientID, limit int) ([]med.AccessEvent, med.EventID, error) {
	w.remember(c)
	return w.log(ctx, c, id, limit)
}

func (w *ward) ReadTrail(_ context.Context, c med.Caller, q med.TrailQuery) (*med.TrailPage, error) {
	w.remember(c)
	return w.trail("", q)
}

func (w *ward) ReadUserTrail(_ context.Context, c med.Caller, user string, q med.TrailQuery) (*med.TrailPage, error) {
	w.remember(c)
	return w.trail(user, q)
}

func (w *ward) ReadAccesses(_ context.Context, c med.Caller, id med.PatientID, p med.Page) (*med.AccessPage, error) {
	w.remember(c)
	return w.accesses(id, p)
}

func (w *ward) ReadCheckpoint(_ context.Context, c med.Caller) (*med.Checkpoint, error) {
	w.remember(c)
	return &med.Checkpoint{Event: eventID, Epoch: 1, Origin: "test.example/audit/1"}, nil
}

func (w *ward) ProveEntry(_ context.Context, c med.Caller, id med.EventID) (*med.EntryProof, error) {
	w.remember(c)
	return &med.EntryProof{Event: eventID, Entry: id}, nil
}

func (w *ward) ProveAccesses(_ context.Context, c med.Caller, id med.PatientID) (*med.WholeProof, error) {
	w.remember(c)
	return &med.WholeProof{Event: eventID, Patient: id}, nil
}

func (w *ward) Tile(_ context.Context, c med.Caller, _ int32, _ audit.TileID, n int) ([]byte, error) {
	w.remember(c)
	return make([]byte, 32*n), nil
}

func (w *ward) remember(c med.Caller) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, c)
}

func (w *ward) last(t testing.TB) med.Caller {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.asked) == 0 {
		t.Fatal("the chart was not asked")
	}
	return w.asked[len(w.asked)-1]
}

func (w *ward) times() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.asked)
}

// syncBuffer is a log that handlers and the test may touch at once.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// house is the room with its test doors and its log.
type house struct {
	*Server
	auth  *doorkeeper
	chart *ward
	log   *syncBuffer
	reg   *prometheus.Registry
}

var everything = med.View{
	med.FieldName: med.Reveal, med.FieldSSN: med.Reveal, med.FieldDOB: med.Reveal, med.FieldDiagnosis: med.Reveal,
}

func alice() *med.PatientView {
	return &med.PatientView{
		Patient: med.Patient{
			ID: "p-001", Practice: "practice-1", Name: med.Name{Text: "Alice Smith"}, SSN: "123-45-6789", DOB: "1985-06-15",
			Diagnosis: "Type 2 diabetes", Version: 7,
		},
		Tag:  "seven",
		View: everything, Event: eventID,
	}
}

func newHouse(t testing.TB, change ...func(*Config)) *house {
	t.Helper()
	h := &house{
		auth: &doorkeeper{callers: map[string]med.Caller{
			"clinician": {Issuer: "iss", Subject: "dr-1", Roles: []med.Role{med.RoleClinician}, Practice: "practice-1"},
		}},
		chart: &ward{
			read: func(context.Context, med.Caller, med.PatientID, ...med.Field) (*med.PatientView, error) {
				return alice(), nil
			},
			log: func(context.Context, med.Caller, med.PatientID, int) ([]med.AccessEvent, med.EventID, error) {
				return nil, eventID, nil
			},
			trail: func(string, med.TrailQuery) (*med.TrailPage, error) { return &med.TrailPage{Event: eventID}, nil },
			accesses: func(med.PatientID, med.Page) (*med.AccessPage, error) {
				return &med.AccessPage{Event: eventID}, nil
			},
		},
		log: &syncBuffer{},
		reg: prometheus.NewRegistry(),
	}
	cfg := Config{
		Auth: h.auth, Chart: h.chart, Log: slog.New(slog.NewJSONHandler(h.log, nil)), Now: time.Now,
		Ready:   func(context.Context) []Check { return []Check{{Name: "database", OK: true}} },
		Metrics: h.reg, Version: "test", NewID: func() string { return requestID },
	}
	for _, c := range change {
		c(&cfg)
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	h.Server = s
	return h
}

// start serves the room over real HTTP.
func (h *house) start(t testing.TB) string {
	t.Helper()
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return srv.URL
}

type reply struct {
	status int
	header http.Header
	body   string
}

// ask sends a request as the clinician, with headers as name, value pairs.
func ask(t testing.TB, method, url string, pairs ...string) reply {
	t.Helper()
	return askAs(t, "clinician", method, url, nil, pairs...)
}

func askAs(t testing.TB, token, method, url string, body io.Reader, pairs ...string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i < len(pairs); i += 2 {
		req.Header.Add(pairs[i], pairs[i+1])
	}
	res, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, string(b)}
}
