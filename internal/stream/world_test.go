// SPDX-License-Identifier: Apache-2.0

package stream

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/siem"
	"github.com/medirecord/medirecord/internal/trail"
)

func TestMain(m *testing.M) { medtest.Main(m) }

// world is a trail with entries, and whoever seals them.
type world struct {
	db     *medtest.Databases
	super  *pgx.Conn
	reader *trail.Reader
	log    *logged
	mu     sync.Mutex
	batch  map[int32]int
	size   map[int32]int64
	ids    map[int32][]string // in the order of the log
	tree   map[int32]*audit.Tree
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{db: medtest.DB(t), log: &logged{}, batch: map[int32]int{}, size: map[int32]int64{}, ids: map[int32][]string{}, tree: map[int32]*audit.Tree{}}
	w.super = w.db.Super(t)
	var err error
	if w.reader, err = trail.OpenReader(context.WithoutCancel(t.Context()), w.db.URL("auditor")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.reader.Close)
	w.begin(t, 1)
	return w
}

func (w *world) begin(t *testing.T, epoch int32) {
	t.Helper()
	medtest.Exec(t, w.super, `insert into audit.epoch (epoch, origin, system_id) select $1, 'test.invalid/audit/' || $1::integer, system_identifier from pg_control_system()`, epoch)
	medtest.Exec(t, w.super, fmt.Sprintf(`alter table audit.event alter column epoch set default %d`, epoch))
}

// seal writes n entries and puts them and their leaves into a batch, as the
// sealer does but for the roots, of which a stream knows nothing.
func (w *world) seal(t *testing.T, epoch int32, n int) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	ctx := context.Background()
	tx, err := w.super.Begin(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tx.Rollback(ctx) }()
	c := med.Caller{
		Issuer: "https://idp.example", Subject: "dr.lee", Practice: "north", Roles: []med.Role{med.RoleClinician}, Purpose: "TREAT",
		Origin: med.Origin{IP: "203.0.113.7", UserAgent: "portal/1.0 \"]\\ <Zoë> 42 <85>1", RequestID: med.NewUUID(time.Now())},
	}
	entries := make([]*audit.Entry, n)
	list := make([]string, n)
	for i := range entries {
		e := audit.New(time.Now(), &c, "read", "patient", "p-001")
		e.Outcome, e.Patient, e.PatientPractice = audit.Success, "p-001", "north"
		entries[i], list[i] = e, string(e.ID)
	}
	if err := trail.AppendTx(ctx, tx, entries...); err != nil {
		t.Fatal(err)
	}
	slices.Sort(list) // as the log does: of one transaction, by id
	if _, err := tx.Exec(ctx, `
insert into audit.batch (epoch, batch, first_index, n, ids, hi_epoch, hi_tx, hi_id, root, map_root)
select $1, $2, $3, $4, string_agg(uuid_send(event_id), ''::bytea order by event_id), $1, pg_current_xact_id(), max(event_id::text)::uuid,
       decode(repeat('00', 32), 'hex'), decode(repeat('00', 32), 'hex')
  from unnest($5::uuid[]) event_id`, epoch, w.batch[epoch], w.size[epoch], n, list); err != nil {
		t.Fatal(err)
	}
	w.putLeaves(t, tx, epoch, list)
	if err := tx.Commit(ctx); err != nil {
		t.Fatal(err)
	}
	w.batch[epoch]++
	w.size[epoch] += int64(n)
	w.ids[epoch] = append(w.ids[epoch], list...)
}

// putLeaves writes the tiles of the leaves.
func (w *world) putLeaves(t *testing.T, tx pgx.Tx, epoch int32, list []string) {
	t.Helper()
	ctx := context.Background()
	rows, err := tx.Query(ctx, `
select e.epoch, e.tx, e.event_id, e.occurred_at, e.recorded_at, e.parent_id, e.actor_issuer, e.actor_subject, e.actor_practice, e.patient_id, e.patient_practice,
       e.action, e.resource_type, e.resource_id, e.outcome, e.code, e.break_glass, e.ctx_nonce, e.ctx_mac, e.detail, e.nonce, e.version
  from audit.event e where e.event_id = any($1::uuid[]) order by e.event_id`, list)
	if err != nil {
		t.Fatal(err)
	}
	tree := w.tree[epoch]
	if tree == nil {
		tree = audit.OpenTree(0, func(audit.TileID) ([]byte, error) { return nil, errors.New("all is in memory") })
		w.tree[epoch] = tree
	}
	if _, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (r audit.Record, err error) {
		if err := row.Scan(&r.Epoch, &r.TX, &r.ID, &r.OccurredAt, &r.RecordedAt, &r.Parent, &r.ActorIssuer, &r.ActorSubject, &r.ActorPractice, &r.Patient, &r.PatientPractice,
			&r.Action, &r.ResourceType, &r.ResourceID, &r.Outcome, &r.Code, &r.BreakGlass, &r.ContextNonce, &r.ContextMAC, &r.Detail, &r.Nonce, &r.Version); err != nil {
			return r, err
		}
		return r, tree.Append(r.Hash())
	}); err != nil {
		t.Fatal(err)
	}
	for id, data := range tree.Changed() {
		if _, err := tx.Exec(ctx, `insert into audit.tile (epoch, level, idx, data) values ($1, $2, $3, $4) on conflict (epoch, level, idx) do update set data = excluded.data`, epoch, id.L, id.N, data); err != nil {
			t.Fatal(err)
		}
	}
	tree.Flush()
}

// config is for streams that do not keep a test waiting.
func (w *world) config(sinks ...Sink) Config {
	return Config{
		Reader: w.reader, Sinks: sinks, Source: siem.Source{Host: "mr1.example", URL: "https://medirecord.example"}, Dev: true,
		Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, Log: slog.New(slog.NewJSONHandler(w.log, nil)), Now: time.Now,
		Every: 20 * time.Millisecond, Backoff: 20 * time.Millisecond, Wait: medtest.Patience,
	}
}

// run streams until the test, or stop, ends it.
func run(t *testing.T, cfg Config) (s *Streams, stop func()) {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	stop = sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(stop)
	return s, stop
}

// await waits for a thing itself.
func await(t *testing.T, what string, there func() bool) {
	t.Helper()
	end := time.Now().Add(4 * time.Minute)
	for !there() {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for: %s", what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// caughtUp reports whether the cursor is behind everything sealed.
func (w *world) caughtUp(t *testing.T, name string) bool {
	t.Helper()
	return w.progress(t, name).Behind == 0
}

func (w *world) progress(t *testing.T, name string) trail.Progress {
	t.Helper()
	all, err := w.reader.Progress(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		if p.Name == name {
			return p
		}
	}
	return trail.Progress{Behind: -1}
}

type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logged) has(s string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(l.b.String(), s)
}

// authority makes certificates, as files for rsyslog and in memory for us.
type authority struct {
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{dir: t.TempDir(), key: key, pool: x509.NewCertPool()}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	a.pool.AddCert(a.cert)
	a.write(t, "ca.crt", "CERTIFICATE", der)
	return a
}

func (a *authority) write(t *testing.T, name, kind string, der []byte) string {
	t.Helper()
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// issue makes a certificate of that name for 127.0.0.1 and localhost.
func (a *authority) issue(t *testing.T, name string) (cert tls.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames: []string{name, "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = a.write(t, name+".crt", "CERTIFICATE", der), a.write(t, name+".key", "PRIVATE KEY", private)
	if cert, err = tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	return cert, certFile, keyFile
}

func reading(cert tls.Certificate) func() (*tls.Certificate, error) {
	return func() (*tls.Certificate, error) { return &cert, nil }
}
