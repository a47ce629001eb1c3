// SPDX-License-Identifier: Apache-2.0

package httpapi

import (
	"crypto/sha256"
	"encoding/base64"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/medirecord/medirecord/internal/med"
)

func day(t testing.TB, s string) med.Day {
	t.Helper()
	d, ok := med.ParseDay(s)
	if !ok {
		t.Fatalf("%s is no day", s)
	}
	return d
}

// days lets cmp look at what days hold.
var days = cmp.Comparer(func(a, b med.Day) bool { return a == b })

const disclosureID = "018f0000-0000-7000-8000-0000000000d1"

func post(t *testing.T, url, body string) reply {
	t.Helper()
	return askAs(t, "clinician", http.MethodPost, url, strings.NewReader(body), "Content-Type", "application/json")
}

func TestRecordADisclosure(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	url := h.start(t) + "/api/v1/patients/p-001/disclosures"
	const one = `"recipient":{"name":"County Health Department","address":"1 Main Street"},"basis":"public_health","purpose":"Notifiable disease","description":"Laboratory report"`
	base := med.Disclosure{
		Basis: "public_health", Recipient: "County Health Department", Address: "1 Main Street", Purpose: "Notifiable disease", Description: "Laboratory report",
		First: day(t, "2026-03-01"), Last: day(t, "2026-03-01"),
	}
	with := func(change func(*med.Disclosure)) med.Disclosure { d := base; change(&d); return d }
	for name, tc := range map[string]struct {
		body string
		want med.Disclosure
	}{
		"of one day": {`{` + one + `,"disclosed_on":"2026-03-01"}`, base},
		"of a period": {
			`{` + one + `,"period":{"first":"2026-03-01","last":"2026-06-30","frequency":"monthly","count":4}}`,
			with(func(d *med.Disclosure) { d.Last, d.Frequency, d.Count = day(t, "2026-06-30"), "monthly", 4 }),
		},
		"with an id, a request and a suspension": {
			`{"id":"` + disclosureID + `",` + one + `,"request":"Folder 3","disclosed_on":"2026-03-01","suspension":{"agency":"law_enforcement","official":"Det. Jones","statement":"oral","stated_on":"2026-03-02","until":"2026-03-31"}}`,
			with(func(d *med.Disclosure) {
				d.ID, d.Request = disclosureID, "Folder 3"
				d.Suspensions = []med.Suspension{{Agency: "law_enforcement", Official: "Det. Jones", Statement: "oral", StatedOn: day(t, "2026-03-02"), Until: day(t, "2026-03-31")}}
			}),
		},
		"without a day, which is for the chart to refuse": {`{` + one + `}`, with(func(d *med.Disclosure) { d.First, d.Last = med.Day{}, med.Day{} })},
	} {
		h.chart.recorded = med.Disclosure{}
		got := post(t, url, tc.body)
		if want := `{"data":{"id":"` + disclosureID + `","version":1},"meta":{"request_id":"` + requestID + `","audit_event_id":"` + eventID + `"}}`; got.status != 201 || got.body != want || got.header.Get(headerEvent) != eventID {
			t.Errorf("%s: got %d %s", name, got.status, got.body)
		}
		if d := cmp.Diff(h.chart.recorded, tc.want, days); d != "" {
			t.Errorf("%s: (-got +want)\n%s", name, d)
		}
	}
	for name, tc := range map[string]struct{ body, at string }{
		"a day and a period":  {`{` + one + `,"disclosed_on":"2026-03-01","period":{"first":"2026-03-01","last":"2026-06-30"}}`, "/period"},
		"an unknown basis":    {`{` + strings.Replace(one, "public_health", "curiosity", 1) + `,"disclosed_on":"2026-03-01"}`, "/basis"},
		"a day that is none":  {`{` + one + `,"disclosed_on":"2026-02-30"}`, "/disclosed_on"},
		"an id that is none":  {`{"id":"7",` + one + `,"disclosed_on":"2026-03-01"}`, "/id"},
		"an unknown property": {`{` + one + `,"disclosed_on":"2026-03-01","writer":"me"}`, "/"},
		"no recipient":        {`{"basis":"public_health","description":"x"}`, "/recipient"},
	} {
		if got := post(t, url, tc.body); got.status != 422 || !strings.Contains(got.body, `"pointer":"`+tc.at+`"`) {
			t.Errorf("%s: got %d %s, want 422 at %s", name, got.status, got.body, tc.at)
		}
	}
}

func TestAmendADisclosure(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	url := h.start(t) + "/api/v1/patients/p-001/disclosures/" + disclosureID + "/amendments"
	got := post(t, url, `{"entered_in_error":true,"suspension":{"agency":"health_oversight","official":"OIG","statement":"written","stated_on":"2026-03-02","until":"2027-03-31"},`+
		`"correction":{"recipient":{"name":"OIG"},"basis":"health_oversight","purpose":"Audit","description":"Bills","disclosed_on":"2026-03-01"}}`)
	if got.status != 201 || !strings.Contains(got.body, `"data":{"id":"`+disclosureID+`","version":2}`) {
		t.Fatalf("got %d %s", got.status, got.body)
	}
	on := day(t, "2026-03-01")
	want := med.Amendment{
		InError:    true,
		Correction: &med.Disclosure{Basis: "health_oversight", Recipient: "OIG", Purpose: "Audit", Description: "Bills", First: on, Last: on},
		Suspension: &med.Suspension{Agency: "health_oversight", Official: "OIG", Statement: "written", StatedOn: day(t, "2026-03-02"), Until: day(t, "2027-03-31")},
	}
	if d := cmp.Diff(h.chart.amendment, want, days); d != "" {
		t.Error("(-got +want)\n" + d)
	}
}

// accounted is an accounting with all that a line can have, and markup in it.
func accounted(t testing.TB) *med.Accounting {
	t.Helper()
	line := func(first, last string, d med.Disclosure) med.AccountedDisclosure {
		d.First, d.Last = day(t, first), day(t, last)
		return med.AccountedDisclosure{Disclosure: d, IDs: []med.DisclosureID{"d-2", "d-1"}}
	}
	a := &med.Accounting{
		Patient: "p-001", Practice: "practice-1", Name: "Evergreen Family Medicine", Window: med.Window{From: day(t, "2020-11-28"), To: day(t, "2026-11-28")},
		Made: day(t, "2026-11-28"), Event: eventID,
		Lines: []med.AccountedDisclosure{
			line("2021-02-03", "2021-02-03", med.Disclosure{
				Basis: "public_health", Recipient: "County Health Department", Address: "1 Main Street\nSpringfield, IL 62701", Purpose: "Notifiable disease: campylobacteriosis",
				Description: "Laboratory report of 2021-02-01: stool culture",
			}),
			line("2022-01-15", "2024-12-15", med.Disclosure{
				Basis: "research", Recipient: "State University, Department of Epidemiology", Purpose: "Study of asthma in adults, waiver of 2021-12-01", Frequency: "monthly", Count: 36,
				Description: "Age, diagnosis and medication",
			}),
			line("2025-05-05", "2025-05-05", med.Disclosure{
				Basis: "law_enforcement", Recipient: `<script>alert("x")</script>`, Address: `"><img src=x onerror=alert(1)>`, Request: `</td></table><style>body{display:none}</style>`,
				Description: `javascript:alert(1) {{.Style}} </style> ${x}`,
			}),
		},
	}
	a.Lines[2].Suspended = &med.Suspension{Agency: "law_enforcement", Official: "Det. Jones", Statement: "oral", StatedOn: a.Made, Until: day(t, "2026-12-28")}
	return a
}

func TestReadAnAccounting(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.chart.accounting = accounted(t)
	url := h.start(t) + "/api/v1/patients/p-001/disclosures"
	got := ask(t, http.MethodGet, url+"?from=2021-01-01&to=2026-11-28")
	want := `{"data":{"patient_id":"p-001","practice_id":"practice-1","practice_name":"Evergreen Family Medicine","from":"2020-11-28","to":"2026-11-28","made_on":"2026-11-28","disclosures":[` +
		`{"ids":["d-1","d-2"],"recipient":{"name":"County Health Department","address":"1 Main Street\nSpringfield, IL 62701"},"basis":"public_health","basis_text":"Public health activities (45 CFR 164.512(b))",` +
		`"purpose":"Notifiable disease: campylobacteriosis","description":"Laboratory report of 2021-02-01: stool culture","first":"2021-02-03","last":"2021-02-03"},`
	if got.status != 200 || !strings.HasPrefix(got.body, want) {
		t.Errorf("got %d %s\nwant %s", got.status, got.body, want)
	}
	for _, part := range []string{`"count":36,"frequency":"monthly"`, `"suspension":{"agency":"law_enforcement","official":"Det. Jones","statement":"oral","stated_on":"2026-11-28","until":"2026-12-28"}`} {
		if !strings.Contains(got.body, part) {
			t.Errorf("got %s, want %s in it", got.body, part)
		}
	}
	if d := cmp.Diff(h.chart.accountAsk, med.AccountingAsk{From: day(t, "2021-01-01"), To: day(t, "2026-11-28")}, days); d != "" {
		t.Error("asked for (-got +want)\n" + d)
	}
	for query, at := range map[string]string{"?from=2021-02-29": "from", "?to=yesterday": "to", "?from=0000-01-01": "from", "?from=2021-01-01&from=2022-01-01": "from", "?limit=3": "limit"} {
		for _, route := range []string{url, url + "/accounting"} {
			if got := ask(t, http.MethodGet, route+query); got.status != 422 || !strings.Contains(got.body, `"pointer":"`+at+`"`) {
				t.Errorf("%s: got %d %s", query, got.status, got.body)
			}
		}
	}
	h.chart.accounting.Lines = nil
	if got := ask(t, http.MethodGet, url); !strings.Contains(got.body, `"disclosures":[]`) {
		t.Errorf("none: got %s", got.body)
	}
}

func TestPrintAnAccounting(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.chart.accounting = accounted(t)
	url := h.start(t) + "/api/v1/patients/p-001/disclosures/accounting"
	got := ask(t, http.MethodGet, url, "Accept", "application/xml")
	if got.status != 200 || got.header.Get("Content-Type") != "text/html; charset=utf-8" || got.header.Get(headerEvent) != eventID || got.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("got %d %v", got.status, got.header)
	}
	if !h.chart.accountAsk.ForPatient {
		t.Error("it is not the patient's copy")
	}
	// The one style is the one that the policy names; there is no other, and no script.
	styles := regexp.MustCompile(`(?s)<style>(.*?)</style>`).FindAllStringSubmatch(got.body, -1)
	if len(styles) != 1 {
		t.Fatalf("%d styles", len(styles))
	}
	sum := sha256.Sum256([]byte(styles[0][1]))
	want := "default-src 'none'; style-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'; sandbox"
	if csp := got.header.Values("Content-Security-Policy"); len(csp) != 1 || csp[0] != want {
		t.Errorf("policy: got %q, want %q", csp, want)
	}
	if at := regexp.MustCompile(`(?i)<(script|img|link|iframe|form|a|object|embed|base)\b|\sstyle=|<[^>]*\son\w+=|<[^>]*(src|href)=`).FindString(got.body); at != "" {
		t.Errorf("the page has %q", at)
	}
	for _, text := range []string{
		"Evergreen Family Medicine", "p-001", "2020-11-28 to 2026-11-28", eventID, "County Health Department", "Springfield, IL 62701", "2022-01-15<br>to 2024-12-15<span>monthly, 36 times</span>",
		"&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;", "&lt;img src=x onerror=alert(1)&gt;", "&lt;style&gt;body{display:none}&lt;/style&gt;", "{{.Style}}", "Public health activities (45 CFR 164.512(b))",
	} {
		if !strings.Contains(got.body, text) {
			t.Errorf("the page does not have %q", text)
		}
	}
	if strings.Contains(got.body, "Det. Jones") || strings.Contains(got.body, "2026-12-28") {
		t.Error("the page tells of a suspension")
	}
	goldenPage(t, "accounting.html", got.body)

	h.chart.accounting.Lines = nil
	if got := ask(t, http.MethodGet, url); !strings.Contains(got.body, "No disclosure of this period is to be accounted for.") || strings.Contains(got.body, "<table") {
		t.Errorf("none: got %s", got.body)
	}
}

// goldenPage holds a page against the one that was looked at.
func goldenPage(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil { //nolint:gosec // sample data
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(got, string(want)); d != "" {
		t.Errorf("%s is another page; look at it, and run with -update (-got +want)\n%s", path, d)
	}
}

func TestHowOftenInWords(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		f    med.Frequency
		n    int
		want string
	}{{"", 0, ""}, {"", 1, ""}, {"", 2, "2 times"}, {"monthly", 0, "monthly"}, {"irregular", 5, "irregularly, 5 times"}} {
		if got := often(&med.AccountedDisclosure{Disclosure: med.Disclosure{Frequency: tc.f, Count: tc.n}}); got != tc.want {
			t.Errorf("%s %d: got %q, want %q", tc.f, tc.n, got, tc.want)
		}
	}
}
