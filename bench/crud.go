// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// templates is how many charts are made over HTTP for the others to be copies of.
const templates = 20

// crud measures the record API as the public benchmarks of FHIR servers do:
// each virtual user creates, reads, updates and deletes a patient and four
// records, in equal parts, again and again; with few patients in the database
// and with many, on a server each, turn by turn, so that what else the machine
// does falls on both. Those patients are copies of charts that were made over
// HTTP, with keys, manifests and blind indexes of their own, so that tables and
// indexes are as large as they would be; what is measured is never a copy.
func crud(ctx context.Context, b *bench, r *result) error {
	var towns []*town
	for _, n := range b.patients {
		s, err := b.start(ctx, 2)
		if err != nil {
			return err
		}
		defer s.stop()
		t := &town{users: newUsers(s, b.users), load: crudLoad{patients: n, took: map[string][]time.Duration{}, spent: usage{}}}
		for range templates {
			if err := t.users.chart(ctx, nil, false); err != nil {
				return fmt.Errorf("making the first charts: %w", err)
			}
		}
		if err := b.fill(ctx, s, n); err != nil {
			return err
		}
		towns = append(towns, t)
	}
	for round := range b.rounds {
		for _, t := range towns {
			if err := t.users.measure(ctx, b, &t.load, round+1); err != nil {
				return err
			}
		}
	}
	var at []crudLoad
	for _, t := range towns {
		for _, d := range t.load.took {
			slices.Sort(d)
		}
		at = append(at, t.load)
	}
	reportCRUD(r, at, b)
	return nil
}

// town is a server with so many patients, and those who work on it.
type town struct {
	users *users
	load  crudLoad
}

// crudLoad is what the loads found, at one size of the database.
type crudLoad struct {
	patients int
	requests int64
	elapsed  time.Duration
	took     map[string][]time.Duration // by operation, while all users were at work
	whole    time.Duration              // how long they all were
	spent    usage
	charts   int     // made
	bytes    float64 // that they take on disk
}

// counted is how many requests took holds.
func (l *crudLoad) counted() (n int) {
	for _, d := range l.took {
		n += len(d)
	}
	return n
}

// rate is how many requests a second all users made together.
func (l *crudLoad) rate() float64 { return float64(l.counted()) / l.whole.Seconds() }

// operations are measured, in this order.
var operations = []string{
	"create_patient", "create_record", "read_patient", "read_record", "update_patient", "update_record", "delete_record", "delete_patient",
}

// kinds are the records of each patient, with bodies that are a real one's size.
var crudRecords = []string{
	`{"kind":"condition","code":[{"system":"http://snomed.info/sct","code":"44054006","display":"Diabetes mellitus type 2"}],"status":"active","effective":{"start":"2021-04-02"},"note":"Found at a yearly visit; diet first."}`,
	`{"kind":"observation","code":[{"system":"http://loinc.org","code":"4548-4","display":"Hemoglobin A1c/Hemoglobin.total in Blood"}],"status":"final","effective":{"start":"2026-03-01T09:30:00Z"},"value":{"quantity":"6.4 %"}}`,
	`{"kind":"medication","code":[{"system":"http://www.nlm.nih.gov/research/umls/rxnorm","code":"860975","display":"Metformin hydrochloride 500 MG"}],"status":"active","effective":{"start":"2026-03-02"},"note":"Twice a day with meals."}`,
	`{"kind":"encounter","code":[{"system":"http://snomed.info/sct","code":"185349003","display":"Encounter for check up"}],"status":"finished","effective":{"start":"2026-03-01T09:00:00Z","end":"2026-03-01T09:40:00Z"}}`,
}

// users are the virtual users: each a goroutine with a connection of its own.
type users struct {
	s      *system
	n      int
	client *http.Client
}

func newUsers(s *system, n int) *users {
	return &users{s, n, &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{MaxIdleConns: n, MaxIdleConnsPerHost: n}}}
}

// tally is what one user counts: every request, and how long those took that
// began while all users were at work.
type tally struct {
	from, until time.Time
	took        map[string][]time.Duration
	requests    int64
}

func (t *tally) note(operation string, start time.Time) {
	if t == nil {
		return
	}
	t.requests++
	if start.After(t.from) && start.Before(t.until) {
		t.took[operation] = append(t.took[operation], time.Since(start))
	}
}

// call sends one request and notes how long its answer took under the
// operation's name. It reports an answer with another status.
func (u *users) call(ctx context.Context, t *tally, operation, method, path, body, match, role string, want int) (id, etag string, err error) {
	req, err := http.NewRequestWithContext(ctx, method, u.s.API+"/api/v1/patients"+path, strings.NewReader(body))
	if err != nil {
		return "", "", err
	}
	req.Header.Set("Authorization", "Bearer "+u.s.Tokens[role])
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if match != "" {
		req.Header.Set("If-Match", match)
	}
	start := time.Now()
	resp, err := u.client.Do(req)
	if err != nil {
		return "", "", err
	}
	answer, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if err != nil {
		return "", "", err
	}
	t.note(operation, start)
	if resp.StatusCode != want {
		var p struct{ Code string }
		_ = json.Unmarshal(answer, &p)
		return "", "", fmt.Errorf("%s: %d %s", operation, resp.StatusCode, p.Code)
	}
	var out struct{ Data struct{ ID string } }
	if len(bytes.TrimSpace(answer)) > 0 {
		if err := json.Unmarshal(answer, &out); err != nil {
			return "", "", fmt.Errorf("%s: %w", operation, err)
		}
	}
	return out.Data.ID, resp.Header.Get("ETag"), nil
}

// chart is one patient's life: with deletes, the whole of it.
func (u *users) chart(ctx context.Context, t *tally, deletes bool) error {
	n := rand.IntN(1e9) //nolint:gosec // a made-up patient
	person := fmt.Sprintf(`{"mrn":"B-%09d","name":{"family":"Bench%05d","given":["Pat"]},"ssn":"%03d-%02d-%04d","dob":"19%02d-0%d-1%d","sex":"female",`+
		`"address":{"line":["1 Main Street"],"city":"Springfield","state":"IL","postal_code":"62701"},"phone":"+1 555 %03d %04d","email":"p%d@example.org","insurance":{"payer":"County Health Plan","member_id":"CHP-%09d"}}`,
		n, n%99991, 100+n%500, 10+n%80, 1+n%9998, n%100, 1+n%9, n%10, 200+n%700, n%9999, n, n)
	patient, _, err := u.call(ctx, t, "create_patient", http.MethodPost, "", person, "", "clinician", http.StatusCreated)
	if err != nil {
		return err
	}
	at := "/" + patient
	records := make([]string, len(crudRecords))
	tags := make([]string, len(crudRecords))
	for i, body := range crudRecords {
		if records[i], _, err = u.call(ctx, t, "create_record", http.MethodPost, at+"/records", body, "", "clinician", http.StatusCreated); err != nil {
			return err
		}
	}
	_, tag, err := u.call(ctx, t, "read_patient", http.MethodGet, at, "", "", "clinician", http.StatusOK)
	if err != nil {
		return err
	}
	for i, id := range records {
		if _, tags[i], err = u.call(ctx, t, "read_record", http.MethodGet, at+"/records/"+id, "", "", "clinician", http.StatusOK); err != nil {
			return err
		}
	}
	if _, _, err = u.call(ctx, t, "update_patient", http.MethodPatch, at, `{"phone":"+1 555 0199"}`, tag, "clinician", http.StatusOK); err != nil {
		return err
	}
	for i, id := range records {
		if _, tags[i], err = u.call(ctx, t, "update_record", http.MethodPatch, at+"/records/"+id, `{"note":"Looked at again."}`, tags[i], "clinician", http.StatusOK); err != nil {
			return err
		}
	}
	if !deletes {
		return nil
	}
	for i, id := range records {
		if _, _, err = u.call(ctx, t, "delete_record", http.MethodDelete, at+"/records/"+id, "", tags[i], "clinician", http.StatusNoContent); err != nil {
			return err
		}
	}
	// A tag names what its caller sees: the admin's is the admin's.
	if _, tag, err = u.call(ctx, t, "read_patient", http.MethodGet, at, "", "", "admin", http.StatusOK); err != nil {
		return err
	}
	_, _, err = u.call(ctx, t, "delete_patient", http.MethodDelete, at, "", tag, "admin", http.StatusNoContent)
	return err
}

// measure lets all users work for the time of a measurement, and adds what it
// finds. They come one after the other, within the same time before it: in step
// they would all do the same at once, and wait for each other. A request that is
// refused or fails ends it.
func (u *users) measure(ctx context.Context, b *bench, l *crudLoad, round int) error {
	size, err := u.s.size(ctx)
	if err != nil {
		return err
	}
	before, err := u.s.usage(ctx)
	if err != nil {
		return err
	}
	own, had := ownCPU(), l.counted()
	whole := time.Duration(b.seconds) * time.Second
	until, cancel := context.WithTimeout(ctx, 2*whole)
	defer cancel()
	var (
		mu    sync.Mutex
		first error
		group sync.WaitGroup
	)
	start := time.Now()
	for i := range u.n {
		group.Go(func() {
			t := &tally{from: start.Add(whole), until: start.Add(2 * whole), took: map[string][]time.Duration{}}
			done := 0
			var err error
			select {
			case <-time.After(whole * time.Duration(i) / time.Duration(u.n)):
			case <-until.Done():
			}
			for ; until.Err() == nil && err == nil; done++ { // a chart that was begun is ended
				err = u.chart(ctx, t, true)
			}
			mu.Lock()
			defer mu.Unlock()
			l.charts += done
			l.requests += t.requests
			for op, d := range t.took {
				l.took[op] = append(l.took[op], d...)
			}
			if first == nil {
				first = err
			}
		})
	}
	group.Wait()
	elapsed := time.Since(start)
	if first != nil {
		return first
	}
	after, err := u.s.usage(ctx)
	if err != nil {
		return err
	}
	l.elapsed += elapsed
	l.whole += whole
	l.spent.add(before, after)
	l.spent["load generator"] += ownCPU() - own
	now, err := u.s.size(ctx)
	if err != nil {
		return err
	}
	l.bytes += now - size
	b.say("round %d of %d: %d patients: %.0f requests/s by %d users", round, b.rounds, l.patients, float64(l.counted()-had)/whole.Seconds(), u.n)
	return nil
}

// size returns the bytes of charts, keys and what finds them; the trail is
// measured elsewhere.
func (s *system) size(ctx context.Context) (float64, error) {
	var total float64
	for _, q := range []struct{ db, sql string }{
		{s.Database.Name, "select coalesce(sum(pg_total_relation_size(c.oid)), 0) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'medirecord' and c.relkind = 'r'"},
		{s.keyDatabase(), "select coalesce(sum(pg_total_relation_size(c.oid)), 0) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'keys' and c.relkind = 'r'"},
	} {
		out, err := s.sql(ctx, q.db, q.sql)
		if err != nil {
			return 0, err
		}
		v, err := strconv.ParseFloat(out, 64)
		if err != nil {
			return 0, err
		}
		total += v
	}
	return total, nil
}

// keyDatabase is the name of the key store's database.
func (s *system) keyDatabase() string {
	name, _, _ := strings.Cut(s.Database.KeystoreURL[strings.LastIndex(s.Database.KeystoreURL, "/")+1:], "?")
	return name
}

// copyStep is how many patients are copied at a time.
const copyStep = 50_000

// fill copies the first charts until there are so many patients.
func (b *bench) fill(ctx context.Context, s *system, n int) error {
	have, err := s.count(ctx, "select count(*) from medirecord.patient")
	if err != nil {
		return err
	}
	clinical, err := loads.ReadFile("load/fill.sql")
	if err != nil {
		return err
	}
	keys, err := loads.ReadFile("load/fillkeys.sql")
	if err != nil {
		return err
	}
	for from := int(have) + 1; from <= n; from += copyStep {
		to := min(n, from+copyStep-1)
		set := fmt.Sprintf("\\set from %d\n\\set to %d\n", from, to)
		if _, err := s.sql(ctx, s.Database.Name, set+string(clinical)); err != nil {
			return err
		}
		if _, err := s.sql(ctx, s.keyDatabase(), set+string(keys)); err != nil {
			return err
		}
		b.say("%d of %d patients", to, n)
	}
	const settle = "set vacuum_cost_delay = 0; vacuum (analyze) medirecord.patient, medirecord.record, medirecord.blind_index, medirecord.manifest; checkpoint"
	_, err = s.sql(ctx, s.Database.Name, settle)
	return err
}

func reportCRUD(r *result, at []crudLoad, b *bench) {
	for _, l := range at {
		size := strconv.Itoa(l.patients)
		r.figure("requests_per_second_"+size, l.rate(), "1/s", fmt.Sprintf("%d virtual users, %s patients", b.users, size))
		r.figure("bytes_per_patient_"+size, l.bytes/float64(max(1, l.charts)), "B", "on disk: a patient, four records, their versions, manifest, indexes, key; without the trail")
		for _, op := range operations {
			r.figure(op+"_ms_p50_"+size, ms(quantile(l.took[op], .5)), "ms", "")
			r.figure(op+"_ms_p99_"+size, ms(quantile(l.took[op], .99)), "ms", "")
		}
		r.note("With %s patients:\n\n%s", size, strings.Replace(l.spent.table(l.requests, l.elapsed, b.machine.cores), "one read", "one request", 1))
	}
	if len(at) < 2 {
		return
	}
	small, large := at[0], at[len(at)-1]
	worst := 0.0
	for _, op := range operations {
		growth := float64(quantile(large.took[op], .99)) / float64(max(1, quantile(small.took[op], .99)))
		worst = max(worst, growth)
		r.ratio(op+"_p99_growth", growth, fmt.Sprintf("p99 with %d patients ÷ with %d", large.patients, small.patients))
	}
	r.ratio("worst_p99_growth", worst, "wanted at most 1.3")
	r.ratio("rate_growth", large.rate()/small.rate(), "requests a second, many ÷ few patients")
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// sizes is a list of numbers of patients, growing.
type sizes []int

var errSizes = errors.New("growing numbers of patients from 100 to 10000000, as 10000,1000000")

func (s *sizes) String() string {
	var b strings.Builder
	for i, n := range *s {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Itoa(n))
	}
	return b.String()
}

func (s *sizes) Set(text string) error {
	var out []int
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 100 || n > 10_000_000 || len(out) > 0 && n <= out[len(out)-1] {
			return errSizes
		}
		out = append(out, n)
	}
	*s = out
	return nil
}
