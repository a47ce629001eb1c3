// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	openapi "github.com/oapi-codegen/runtime/types"

	"github.com/medirecord/medirecord/client"
	"github.com/medirecord/medirecord/coresdk"
)

const (
	north = "practice-north"
	south = "practice-south"
)

// TestDevServer tells the life of two development servers, one after the other
// and side by side: what they answer, what they refuse, what they do when parts
// of them are killed, paused and cut off, and what is on their disk when they
// have stopped. It is one story because a server costs seconds to make.
//
// Not parallel, and neither are its parts: what it measures are deadlines.
func TestDevServer(t *testing.T) {
	a, b := newHome(t), newHome(t)
	bundles := writeBundles(t)
	second := b.devStarting(t, nil, "--import", bundles.dev)
	first := a.dev(t, []string{"MEDIRECORD_KEY_CACHE=" + keyCache.String()}, "--sample", "6")
	second.ready(t)
	stage := func(name string, f func(*testing.T)) {
		t.Helper()
		if !t.Run(name, f) {
			t.FailNow() // what follows stands on it
		}
	}

	stage("dev.json is as the contract says", func(t *testing.T) { devJSON(t, first, 6) })
	stage("the curl lines that it prints do what the guide shows", func(t *testing.T) { curlLines(t, first) })
	stage("each role sees its view", func(t *testing.T) { views(t, first) })
	stage("break-glass, and the audit list that shows it", func(t *testing.T) { breakGlass(t, first) })
	stage("a disclosure, and its accounting", func(t *testing.T) { disclosure(t, first) })
	stage("tokens", func(t *testing.T) { tokens(t, first) })
	stage("two servers side by side know nothing of each other", func(t *testing.T) { sideBySide(t, first, second) })
	stage("dev --import", func(t *testing.T) { devImport(t, second, bundles) })
	stage("practices", func(t *testing.T) { practices(t, first) })
	stage("import", func(t *testing.T) { importing(t, first, bundles) })
	stage("what was minted was entered, and the worker says so", func(t *testing.T) { watched(t, first) })
	stage("a second server on the same folder is refused, a busy port too", func(t *testing.T) { refusedStarts(t, first) })
	stage("migrating again changes nothing", func(t *testing.T) { migrateAgain(t, second) })
	stage("the API does not start on what is unsafe", func(t *testing.T) { startUpRefusals(t, second) })
	stage("Ctrl-C stops everything", func(t *testing.T) { second.stop(t, syscall.SIGINT) })

	book := &ledger{}
	people := portraits(t, first)
	failClosed(t, first, book, people)
	stage("what a killed supervisor leaves is nothing", func(t *testing.T) {
		signalProcess(t, first.PID(), syscall.SIGKILL)
		first.gone(t)
	})
	third := a.dev(t, nil, "--sample", "6")
	stage("a second start on the same folder has the same patients", func(t *testing.T) {
		devJSON(t, third, 6)
		same(t, third, people)
		book.compare(t, third)
	})
	stage("PostgreSQL killed under load", func(t *testing.T) { postgresKilled(t, third, book, people) })
	stage("SIGTERM stops what is left", func(t *testing.T) { third.stop(t, syscall.SIGTERM) })
	fourth := a.dev(t, nil, "--sample", "6")
	stage("a start after the crash has every entry", func(t *testing.T) {
		same(t, fourth, people)
		book.compare(t, fourth)
	})

	found := plant(t, fourth)
	stage("no table holds what is sealed", func(t *testing.T) { tablesHold(t, fourth, bundles, people, found) })
	stage("SIGTERM stops everything", func(t *testing.T) { fourth.stop(t, syscall.SIGTERM) })
	stage("SIGTERM in the midst of starting leaves nothing half-done", func(t *testing.T) { stoppedWhileStarting(t, b) })
	stage("no file holds what is sealed", func(t *testing.T) {
		filesHold(t, a, bundles, people, found)
		filesHold(t, b, bundles, nil, nil)
	})
}

// watched waits until the worker has found every context that was minted so far
// in the trail, and checks that it flagged nothing.
func watched(t *testing.T, s *devServer) {
	eventually(t, 3*time.Minute, "all that was minted was found entered", func() error {
		a := ask(t.Context(), s.info.WorkerOps+"/metrics", "")
		if a.err != nil {
			return a.err
		}
		for _, line := range []string{
			"medirecord_watch_waiting 0", "medirecord_watch_behind_entries 0",
			`medirecord_watch_flags_total{kind="mac"} 0`, `medirecord_watch_flags_total{kind="unentered"} 0`, `medirecord_watch_flags_total{kind="unknown"} 0`,
		} {
			if !strings.Contains(string(a.body), line+"\n") {
				return errors.New("not so: " + line)
			}
		}
		if strings.Contains(string(a.body), "medirecord_watch_entries_total 0\n") {
			return errors.New("nothing was looked at")
		}
		return nil
	})
}

func devJSON(t *testing.T, s *devServer, patients int) {
	file := filepath.Join(s.data, "dev.json")
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("dev.json has mode %o, want 600", got)
	}
	var all map[string]json.RawMessage
	if err := json.Unmarshal([]byte(contents(t, file)), &all); err != nil {
		t.Fatal(err)
	}
	keys := func(name string) []string {
		var m map[string]any
		if err := json.Unmarshal(all[name], &m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return slices.Sorted(maps.Keys(m))
	}
	for _, c := range []struct{ got, want []string }{
		{slices.Sorted(maps.Keys(all)), []string{"api", "database", "jwks", "ops", "patients", "pids", "practices", "sidecar", "tokens", "witness", "worker_ops"}},
		{keys("pids"), []string{"api", "postgres", "sidecar", "witness", "worker"}},
		{keys("database"), []string{"app_url", "auditor_url", "keystore_url", "name", "port", "socket", "superuser_url", "trail_url"}},
		{keys("tokens"), []string{"admin", "break_glass", "clinician", "nurse", "officer", "patient"}},
	} {
		if !slices.Equal(c.got, c.want) {
			t.Errorf("got the keys %v, want %v", c.got, c.want)
		}
	}
	var list []map[string]string
	if err := json.Unmarshal(all["patients"], &list); err != nil {
		t.Fatal(err)
	}
	if len(list) != patients || len(list[0]) != 2 || list[0]["id"] != "p-001" || list[0]["practice_id"] != s.info.Practices[0] {
		t.Errorf("got the patients %v, want %d, p-001 of the first practice first", list, patients)
	}
	if !slices.Equal(s.info.Practices, []string{north, south}) {
		t.Errorf("got the practices %v", s.info.Practices)
	}
	for part, pid := range s.info.PIDs {
		if p := processOf(pid); !p.alive() || p.parent != s.PID() {
			t.Errorf("%s: process %d is not a living child of the supervisor", part, pid)
		}
	}
	ready(t, s.info.Ops)
	for _, url := range []string{s.info.API + "/openapi.json", s.info.Ops + "/healthz", s.info.JWKS} {
		if a := ask(t.Context(), url, ""); a.err != nil || a.status != 200 {
			t.Errorf("%s answers %d (%v), want 200", url, a.status, a.err)
		}
	}
	conn, err := coresdk.Dial(t.Context(), coresdk.Config{Addr: strings.TrimPrefix(s.info.Sidecar, "http://"), Dev: true})
	if err != nil {
		t.Fatalf("the sidecar: %v", err)
	}
	_ = conn.Close()
	if got := row[string](t, s.super(t, s.info.Database.Name), `select current_setting('is_superuser')`); got != "on" {
		t.Errorf("superuser_url is no superuser's")
	}
	for role, text := range s.info.Tokens {
		tokenSays(t, s, role, text)
	}
}

// tokenSays holds a token of dev.json against the contract: it belongs to the
// first practice and patient, lives twelve hours, and MFA was done now.
func tokenSays(t *testing.T, s *devServer, role, text string) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		t.Fatalf("the token of %s is none", role)
	}
	b, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	var c struct {
		Roles    []string `json:"roles"`
		Practice string   `json:"practice_id"`
		Patient  string   `json:"patient_id"`
		MFA      bool     `json:"mfa_verified"`
		AuthTime int64    `json:"auth_time"`
		Expires  int64    `json:"exp"`
		Issued   int64    `json:"iat"`
	}
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	patient := ""
	if role == "patient" {
		patient = s.info.Patients[0].ID
	}
	if !slices.Equal(c.Roles, []string{role}) || c.Practice != north || c.Patient != patient || !c.MFA ||
		time.Duration(c.Expires-c.Issued)*time.Second != 12*time.Hour || time.Since(time.Unix(c.AuthTime, 0)) > 5*time.Minute {
		t.Errorf("the token of %s says %+v", role, c)
	}
}

var curlLine = regexp.MustCompile(`(?m)^# (.*)\ncurl -s (\S+) \\\n    -H 'Authorization: Bearer (\S+)'(?: \\\n    -H 'X-Break-Glass-Reason: ([^']*)')?$`)

func curlLines(t *testing.T, s *devServer) {
	lines := curlLine.FindAllStringSubmatch(contents(t, s.out), -1)
	want := []struct {
		what   string
		status int
		body   string
	}{
		{"clinician", 200, `"ssn":"123-45-6789"`},
		{"patient", 200, `"ssn":"***-**-6789"`},
		{"with a reason", 200, `"ssn":"123-45-6789"`},
		{"without a reason", 403, `"code":"break_glass_reason_required"`},
		{"admin", 200, `"action":"read"`},
	}
	if len(lines) != len(want) {
		t.Fatalf("it prints %d curl lines, want %d", len(lines), len(want))
	}
	for i, l := range lines {
		var header []string
		if l[4] != "" {
			header = []string{"X-Break-Glass-Reason", l[4]}
		}
		got := patiently(t, func() answer { return ask(t.Context(), l[2], l[3], header...) })
		if got.err != nil || got.status != want[i].status || !strings.Contains(string(got.body), want[i].body) || !strings.Contains(l[1], want[i].what) {
			t.Errorf("%q answers %d %s (%v), want %d with %s", l[1], got.status, got.body, got.err, want[i].status, want[i].body)
		}
	}
}

func views(t *testing.T, s *devServer) {
	diagnosis := s.get(t, s.info.Tokens["clinician"], "/patients/p-001").field("diagnosis")
	if !strings.Contains(diagnosis, "Essential hypertension") {
		t.Errorf("got the diagnosis %q", diagnosis)
	}
	body := func(name, ssn, dob, diagnosis string) string {
		b, err := json.Marshal(struct {
			ID        string `json:"id"`
			Name      string `json:"name"`
			SSN       string `json:"ssn"`
			DOB       string `json:"dob"`
			Diagnosis string `json:"diagnosis"`
			Practice  string `json:"practice_id"`
		}{"p-001", name, ssn, dob, diagnosis, north})
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for role, want := range map[string]string{
		"clinician": body("Alice Smith", "123-45-6789", "1985-06-15", diagnosis),
		"admin":     body("Alice Smith", "123-45-6789", "1985-06-15", diagnosis),
		"nurse":     body("Alice Smith", "", "1985-06-15", diagnosis),
		"patient":   body("Alice Smith", "***-**-6789", "****-**-15", ""),
	} {
		got := s.get(t, s.info.Tokens[role], "/patients/p-001")
		if got.status != 200 || strings.TrimSpace(string(got.body)) != want || got.event() == "" || got.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s gets %d %s\nwant 200 %s", role, got.status, got.body, want)
		}
	}
	for _, c := range []struct {
		what, token, path string
		status            int
		detail, code      string
	}{
		{"nobody", "", "/patients/p-001", 401, "Valid JWT required. Sidecar validation failed.", "unauthorized"},
		{"a bad token", s.info.Tokens["clinician"] + "x", "/patients/p-001", 401, "Valid JWT required. Sidecar validation failed.", "unauthorized"},
		{"an officer", s.info.Tokens["officer"], "/patients/p-001", 403, "Your role does not allow this.", "forbidden"},
		{"a clinician of another practice", s.info.Tokens["clinician"], "/patients/p-006", 403, "Patient record belongs to a different practice.", "other_practice"},
		{"a patient, of another", s.info.Tokens["patient"], "/patients/p-002", 403, "Patients may only access their own records.", "not_self"},
		{"a patient, of nobody", s.info.Tokens["patient"], "/patients/nobody", 403, "Patients may only access their own records.", "not_self"},
		{"an id nobody has", s.info.Tokens["clinician"], "/patients/nobody", 404, "", "not_found"},
	} {
		got := s.get(t, c.token, c.path)
		if got.status != c.status || c.detail != "" && got.field("detail") != c.detail || got.field("code") != c.code {
			t.Errorf("%s gets %d %s, want %d %q %s", c.what, got.status, got.body, c.status, c.detail, c.code)
		}
	}
}

// breakGlassReason must be found nowhere on disk.
const breakGlassReason = "Þungt haldinn, reason-of-the-emergency ZQX-4711"

// disclosed must be found nowhere on disk either.
var disclosed = []string{"Zoonosenzentrale of Þingeyri", "9 Quarry-and-Lime Lane", "notifiable psittacosis QXV-31", "two swabs of the throat QXV-32"}

// disclosure records one, and reads its accounting back.
func disclosure(t *testing.T, s *devServer) {
	day := openapi.Date{Time: time.Date(2025, 5, 5, 0, 0, 0, 0, time.UTC)}
	made, err := s.client(t, s.info.Tokens["officer"]).RecordDisclosureWithResponse(t.Context(), "p-001", nil, client.RecordedBody{
		Recipient: client.RecipientBody{Name: disclosed[0], Address: &disclosed[1]}, Basis: client.RecordedBodyBasisPublicHealth,
		Purpose: &disclosed[2], Description: disclosed[3], DisclosedOn: &day,
	})
	if err != nil || made.JSON201 == nil {
		t.Fatalf("recording it: %+v, %v", made, err)
	}
	for who, token := range map[string]string{"the patient": s.info.Tokens["patient"], "an officer": s.info.Tokens["officer"]} {
		for _, path := range []string{"/api/v1/patients/p-001/disclosures", "/api/v1/patients/p-001/disclosures/accounting"} {
			got := s.get(t, token, path)
			for _, text := range disclosed {
				if got.status != 200 || !strings.Contains(string(got.body), text) {
					t.Errorf("%s gets %d %s of %s, want %q in it", who, got.status, got.body, path, text)
				}
			}
		}
	}
}

func breakGlass(t *testing.T, s *devServer) {
	token := s.info.Tokens["break_glass"]
	denied := s.get(t, token, "/patients/p-001")
	if denied.status != 403 || denied.field("detail") != "Break-glass access requires X-Break-Glass-Reason header." ||
		denied.field("type") != "https://medirecord.example/errors/break-glass-reason-required" || denied.header.Get("Content-Type") != "application/problem+json" {
		t.Errorf("without a reason: %d %s", denied.status, denied.body)
	}
	if got := s.get(t, token, "/patients/p-001", "X-Break-Glass-Reason", "short"); got.status != 422 {
		t.Errorf("with a reason too short: %d, want 422", got.status)
	}
	// The patient of another practice, as much as one of the own.
	admins := map[string]string{"p-001": s.info.Tokens["admin"], "p-006": strings.TrimSpace(s.must(t, "token", "--data", s.data, "--role", "admin", "--practice", south))}
	for patient, admin := range admins {
		opened := s.get(t, token, "/patients/"+patient, "X-Break-Glass-Reason", breakGlassReason)
		if opened.status != 200 || opened.field("id") != patient || len(opened.field("ssn")) != len("123-45-6789") || opened.field("diagnosis") == "" {
			t.Errorf("with a reason: %d %s", opened.status, opened.body)
		}
		seen := auditList(t, s, admin, patient)
		if want := "dev-break_glass read success " + breakGlassReason + " true"; seen[opened.event()] != want {
			t.Errorf("got the entry %q, want %q", seen[opened.event()], want)
		}
		if want := "dev-break_glass access_granted " + breakGlassReason + " true"; patient == "p-006" && seen["break_glass"] != want {
			t.Errorf("got the start of the grant %q, want %q", seen["break_glass"], want)
		}
		if want := "dev-break_glass read denied  false"; patient == "p-001" && seen[denied.event()] != want {
			t.Errorf("got the denial %q, want %q", seen[denied.event()], want)
		}
	}
	for _, role := range []string{"clinician", "nurse", "patient", "officer", "break_glass"} {
		if got := s.get(t, s.info.Tokens[role], "/patients/p-001/audit", "X-Break-Glass-Reason", breakGlassReason); got.status != 403 {
			t.Errorf("%s gets %d of the audit list, want 403", role, got.status)
		}
	}
	weak := strings.TrimSpace(s.must(t, "token", "--data", s.data, "--role", "admin", "--practice", north, "--mfa=false"))
	if got := s.get(t, weak, "/patients/p-001/audit"); got.status != 403 || got.field("code") != "mfa_required" {
		t.Errorf("an admin without MFA gets %d %s, want 403 mfa_required", got.status, got.body)
	}
}

// value is what it points to, or nothing.
func value[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// auditList returns what an admin sees of the accesses to a patient, by entry,
// and the last start of a grant.
func auditList(t *testing.T, s *devServer, admin, patient string) map[string]string {
	t.Helper()
	limit := int64(200)
	list, err := s.client(t, admin).ReadPatientAuditWithResponse(t.Context(), patient, &client.ReadPatientAuditParams{Limit: &limit})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	last := time.Now().Add(time.Hour)
	if at := regexp.MustCompile(`"timestamp":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"`).FindAll(list.Body, -1); len(at) != len(*list.JSON200) {
		t.Errorf("%d of %d timestamps are in milliseconds", len(at), len(*list.JSON200))
	}
	for _, e := range *list.JSON200 {
		if at := e.Timestamp.Format(time.RFC3339Nano); e.Timestamp.After(last) {
			t.Errorf("timestamp %s is out of order", at)
		}
		last = e.Timestamp
		reason, glass := value(e.Reason), value(e.BreakGlass)
		if e.Resource != "patient/"+patient {
			t.Errorf("an entry of %s", e.Resource)
		}
		seen[e.Id] = strings.Join([]string{e.Actor, e.Action, e.Outcome, reason, fmt.Sprint(glass)}, " ")
		if e.Action == "break_glass" {
			seen["break_glass"] = strings.Join([]string{e.Actor, e.Outcome, reason, fmt.Sprint(glass)}, " ")
		}
	}
	return seen
}

func tokens(t *testing.T, s *devServer) {
	ssn := func(a answer) string { return a.field("ssn") }
	for _, c := range []struct {
		args   []string
		path   string
		status int
		ssn    string
	}{
		{[]string{"--role", "nurse", "--practice", north}, "/patients/p-001", 200, ""},
		{[]string{"--role", "nurse,clinician", "--practice", north}, "/patients/p-001", 200, "123-45-6789"},
		{[]string{"--role", "nurse", "--role", "clinician", "--practice", north}, "/patients/p-001", 200, "123-45-6789"},
		{[]string{"--role", "provider", "--practice", north}, "/patients/p-001", 200, "123-45-6789"},
		{[]string{"--role", "clinician", "--practice", south}, "/patients/p-001", 403, ""},
		{[]string{"--role", "clinician", "--practice", north, "--mfa=false"}, "/patients/p-001", 403, ""},
		{[]string{"--role", "clinician", "--practice", north, "--no-mfa"}, "/patients/p-001", 403, ""},
		{[]string{"--role", "patient", "--practice", north, "--patient", "p-001", "--sub", "alice"}, "/patients/p-001", 200, "***-**-6789"},
		{[]string{"--role", "patient", "--practice", north, "--patient", "p-002"}, "/patients/p-001", 403, ""},
		// Whatever else they are: their own record is seen as a patient's.
		{[]string{"--role", "patient,clinician", "--practice", north, "--patient", "p-001"}, "/patients/p-001", 200, "***-**-6789"},
		{[]string{"--role", "break_glass", "--ttl", "5m", "--sub", "er-1"}, "/patients/p-001", 200, "123-45-6789"},
		// Officers are officers only.
		{[]string{"--role", "officer,clinician", "--practice", north}, "/patients/p-001", 401, ""},
	} {
		token := strings.TrimSpace(s.must(t, append([]string{"token", "--data", s.data}, c.args...)...))
		got := s.get(t, token, c.path, "X-Break-Glass-Reason", breakGlassReason)
		if got.status != c.status || ssn(got) != c.ssn {
			t.Errorf("token %v: %d %s, want %d and ssn %q", c.args, got.status, got.body, c.status, c.ssn)
		}
	}
	whole := s.must(t, "token", "--data", s.data, "--role", "nurse", "--practice", north)
	if !regexp.MustCompile(`^[\w-]+\.[\w-]+\.[\w-]+\n$`).MatchString(whole) {
		t.Errorf("it prints more than the token: %q", whole)
	}
}

func sideBySide(t *testing.T, first, second *devServer) {
	for i, s := range []*devServer{first, second} {
		other := []*devServer{second, first}[i]
		if got := s.get(t, s.info.Tokens["clinician"], "/patients/"+s.info.Patients[0].ID); got.status != 200 {
			t.Errorf("server %d: %d, want 200", i+1, got.status)
		}
		if got := s.get(t, other.info.Tokens["clinician"], "/patients/"+s.info.Patients[0].ID); got.status != 401 {
			t.Errorf("server %d takes the other's token: %d, want 401", i+1, got.status)
		}
	}
}

// enrolling lists whom a practice trusts, as it is told and taken back.
func enrolling(t *testing.T, s *devServer) {
	t.Helper()
	on := []string{"--practice", "practice-north", "--data", s.data}
	practice := func(args ...string) string { return s.must(t, slices.Concat([]string{"practice"}, args, on)...) }
	if out := practice("sources") + practice("staff", "--json"); out != "" {
		t.Errorf("of nobody: got %q", out)
	}
	practice("trust", "ehr")
	practice("enroll", "--issuer", "https://id.example", "--subject", "doc 7\n", "ehr", "http://hl7.org/fhir/sid/us-npi|1234567893")
	const since = `\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ`
	for _, c := range []struct{ want, got string }{
		{`^ehr  ` + since + `\n$`, practice("sources")},
		{`^\{"source":"ehr","since":"` + since + `"\}\n$`, practice("sources", "--json")},
		{`^ehr  "http://hl7.org/fhir/sid/us-npi\|1234567893"  "https://id.example"  "doc 7\\n"  ` + since + `\n$`, practice("staff")},
		{`^\{"source":"ehr","practitioner":"http://hl7.org/fhir/sid/us-npi\|1234567893","issuer":"https://id.example","subject":"doc 7\\n","since":"` + since + `"\}\n$`, practice("staff", "--json")},
	} {
		if !regexp.MustCompile(c.want).MatchString(c.got) {
			t.Errorf("got %q, want %s", c.got, c.want)
		}
	}
	if out := s.must(t, "practice", "sources", "--practice", "practice-south", "--data", s.data); out != "" {
		t.Errorf("another practice: got %q", out)
	}
	practice("dismiss", "ehr", "http://hl7.org/fhir/sid/us-npi|1234567893")
	practice("distrust", "ehr")
	if out := practice("sources") + practice("staff"); out != "" {
		t.Errorf("taken back: got %q", out)
	}
}

func practices(t *testing.T, s *devServer) {
	if got := s.run(t, nil, "practice", "add", "bad id", "--name", "X", "--data", s.data); got.code != 1 || !strings.Contains(got.errs, "practice id") {
		t.Errorf("a bad id exits %d: %s", got.code, got.errs)
	}
	out := s.must(t, "practice", "add", "practice-east", "--name", "MedCore East", "--data", s.data)
	if out != "practice practice-east is there, with its keys\n" {
		t.Errorf("got %q", out)
	}
	if got := s.run(t, nil, "practice", "add", "practice-east", "--name", "Other", "--data", s.data); got.code != 1 || strings.Contains(got.errs, "SQLSTATE") {
		t.Errorf("the same again exits %d: %s", got.code, got.errs)
	}
	out = s.must(t, "practice", "list", "--data", s.data)
	if !regexp.MustCompile(`(?m)^practice-east +MedCore East +\d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ$`).MatchString(out) || strings.Count(out, "\n") != 3 {
		t.Errorf("got the practices\n%s", out)
	}
	enrolling(t, s)
	if n := row[int](t, s.super(t, "medirecord_keystore"), `select count(*) from keys.practice_key where practice_id = 'practice-east'`); n != 3 {
		t.Errorf("the new practice has %d keys, want 3", n)
	}
}

func refusedStarts(t *testing.T, s *devServer) {
	before := contents(t, filepath.Join(s.data, "dev.json"))
	got := s.run(t, nil, "dev", "--data", s.data, "--listen", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--sidecar", "127.0.0.1:0")
	if got.code != 1 || !strings.Contains(got.errs, "another development server runs on "+s.data) {
		t.Errorf("a second server on the folder exits %d: %s", got.code, got.errs)
	}
	if after, err := os.ReadFile(filepath.Join(s.data, "dev.json")); err != nil || string(after) != before {
		t.Errorf("the second took the first one's dev.json: %v", err)
	}
	if a := s.get(t, s.info.Tokens["clinician"], "/patients/p-001"); a.status != 200 {
		t.Errorf("the first answers %d after it, want 200", a.status)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	for _, flag := range []string{"--listen", "--ops", "--sidecar"} {
		dir := filepath.Join(s.root, "busy")
		args := []string{"dev", "--data", dir}
		for _, f := range []string{"--listen", "--ops", "--sidecar"} {
			addr := "127.0.0.1:0"
			if f == flag {
				addr = taken.Addr().String()
			}
			args = append(args, f, addr)
		}
		got := s.run(t, nil, args...)
		if got.code != 1 || !strings.Contains(got.errs, flag+" "+taken.Addr().String()+" cannot be used") {
			t.Errorf("a busy port of %s exits %d: %s", flag, got.code, got.errs)
		}
		if _, err := os.Stat(dir); err == nil {
			t.Errorf("a busy port of %s leaves a folder", flag)
		}
	}
}

func stoppedWhileStarting(t *testing.T, h home) {
	s := h.devStarting(t, nil)
	eventually(t, time.Minute, "it has started PostgreSQL", func() error {
		if !strings.Contains(contents(t, s.out), "migrating\n") {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	s.procs = append([]process{processOf(s.PID())}, descendants(s.PID())...)
	s.stop(t, syscall.SIGTERM)
	if errs := contents(t, s.errs); strings.Contains(errs, "medirecord:") {
		t.Errorf("it complains: %s", errs)
	}
}

// portraits are what a clinician sees of each patient of the first practice,
// by id.
func portraits(t *testing.T, s *devServer) map[string]answer {
	t.Helper()
	out := map[string]answer{}
	for _, p := range s.info.Patients {
		if p.Practice != north {
			continue
		}
		a := s.get(t, s.info.Tokens["clinician"], "/patients/"+p.ID)
		if a.status != http.StatusOK {
			t.Fatalf("%s: %d %s", p.ID, a.status, a.body)
		}
		out[p.ID] = a
	}
	return out
}

// same wants the patients as they were.
func same(t *testing.T, s *devServer, people map[string]answer) {
	t.Helper()
	for id, now := range portraits(t, s) {
		if string(now.body) != string(people[id].body) {
			t.Errorf("%s is not as before", id)
		}
	}
	if len(people) == 0 {
		t.Error("nobody is there")
	}
}
