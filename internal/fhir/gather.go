// SPDX-License-Identifier: Apache-2.0

package fhir

import (
	"errors"
	"io"
	"strconv"
	"strings"

	"github.com/medirecord/medirecord/internal/med"
)

// Bundle is one patient with their records, mapped and checked to be theirs.
type Bundle struct {
	// Patient has no Practice. The ID is the source's if it is legal and tells
	// nothing of the person, else empty; SourceID is the source's in any case.
	Patient med.Patient
	// Records have no Patient. Their ids are unique.
	Records []med.Record
	// Treatments say whom of the staff the records tie to the patient.
	Treatments []med.SourceTreatment
	// Counts is how many resources of each type there were, the Patient too.
	Counts   map[string]int
	Warnings []Warning
}

// ReadBundle reads a whole bundle: exactly one patient, and resources that are
// theirs or nobody's. It reports what BundleReader.Next does, and a Refusal for
// a resource that does not map, one about another patient or about a patient
// this bundle does not hold (conditional and absolute references), one that was
// there before, and a bundle above limits.Total. The reader has been read to its
// end when there is no error.
func ReadBundle(r io.Reader, limits Limits) (*Bundle, error) {
	limits = limits.withDefaults()
	in := &counter{r: r}
	b := NewBundleReader(in, limits)
	g := NewGatherer(limits)
	for {
		e, err := b.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if in.n > limits.Total {
			return nil, at(tooLarge("larger than the limit for one bundle"), Whole, 0)
		}
		if err := g.add(e, &b.doc); err != nil {
			return nil, err
		}
	}
	g.whole = b.meta
	return g.Bundle()
}

// Gatherer puts one patient's resources together. It is how NDJSON, where they
// lie in many files, becomes a Bundle; ReadBundle uses it too.
type Gatherer struct {
	limits   Limits
	bytes    int64
	count    int
	out      Bundle
	patient  entry // place and names of the patient, once seen
	hasOne   bool
	telling  []string // what an id must not contain
	ids      []string // beside out.Records: the source's ids
	owners   []owner
	labelled bool   // some resource carries a confidentiality label of its own
	whole    labels // of the bundle itself
	seen     map[string]bool
	coverage coverages
	doc      doc
}

// owner is whom an entry says it is about.
type owner struct {
	place Place
	index int
	ref   string
}

// NewGatherer returns a gatherer for one patient.
func NewGatherer(limits Limits) *Gatherer {
	return &Gatherer{limits: limits.withDefaults(), out: Bundle{Counts: map[string]int{}}, seen: map[string]bool{}}
}

// AddLine takes in one resource of an NDJSON file; line is its number, for
// refusals and warnings. It reports a Refusal as ReadBundle does.
func (g *Gatherer) AddLine(raw string, line int) error {
	e, err := parseLine(&g.doc, raw, g.limits)
	if err != nil {
		return at(err, Line, line)
	}
	e.place, e.index = Line, line
	return g.add(e, &g.doc)
}

func (g *Gatherer) add(e entry, d *doc) error {
	g.count++
	g.bytes += int64(len(e.res.raw()))
	if g.count > g.limits.Entries || g.bytes > g.limits.Total {
		return at(tooLarge("more than the limit for one patient"), e.place, e.index)
	}
	return at(g.take(e, d), e.place, e.index)
}

func (g *Gatherer) take(e entry, d *doc) error {
	if e.id == "" {
		// Without an id the bundle's own name for the entry is the next best.
		if uuid, ok := strings.CutPrefix(e.fullURL, "urn:uuid:"); ok && med.IsUUID(uuid) {
			e.id = uuid
		}
	}
	if err := g.once(e); err != nil {
		return err
	}
	m := mapper{d: d, place: e.place, index: e.index, typ: e.typ}
	defer func() { g.out.Warnings = append(g.out.Warnings, m.warnings...) }()
	g.out.Counts[e.typ]++
	if labelsOf(e.res.get("meta")).labelled {
		g.labelled = true
	}
	if e.typ == "Patient" {
		return g.takePatient(e, &m)
	}
	return g.takeRecord(e, &m)
}

// once refuses a resource that came before, by type and id or by fullUrl.
func (g *Gatherer) once(e entry) error {
	var names []string
	if e.id != "" {
		names = append(names, e.typ+"/"+e.id)
	}
	if e.fullURL != "" {
		names = append(names, "url "+e.fullURL)
	}
	for _, name := range names {
		if g.seen[name] {
			return refuse("a resource with this type and id, or this fullUrl, was there before")
		}
		g.seen[name] = true
	}
	return nil
}

func (g *Gatherer) takePatient(e entry, m *mapper) error {
	if g.hasOne {
		return refuse("a second patient")
	}
	if _, err := med.ParsePatientID(e.id); err != nil {
		return refuse("the patient has no legal id")
	}
	p, err := m.patient(e)
	if err != nil {
		return err
	}
	g.telling = telling(e.res)
	if !tells(e.id, g.telling) {
		p.ID = med.PatientID(e.id)
	}
	g.out.Patient, g.patient, g.hasOne = p, e, true
	g.patient.res = val{} // the tree is used again for the next entry
	return nil
}

func (g *Gatherer) takeRecord(e entry, m *mapper) error {
	r, err := m.record(e)
	if err != nil {
		return err
	}
	if err := g.noteOwners(e, r.Kind); err != nil {
		return err
	}
	g.coverage.add(e)
	g.out.Records = append(g.out.Records, r)
	g.out.Treatments = append(g.out.Treatments, treatments(e)...)
	g.ids = append(g.ids, e.id)
	return nil
}

// noteOwners keeps whom the entry is about, to be judged when the patient is
// known: they may come last.
func (g *Gatherer) noteOwners(e entry, kind med.Kind) error {
	named := false
	for _, ref := range subjects(e) {
		named = true
		if err := judgeForm(ref); err != nil {
			return err
		}
		if n := len(g.owners); n > 0 && g.owners[n-1].ref == ref.get("reference").str() {
			continue // nearly all entries say the same: one owner stands for them
		}
		g.owners = append(g.owners, owner{e.place, e.index, ref.get("reference").str()})
	}
	if !named && kind != med.KindOther {
		return refuse("the resource names no patient")
	}
	return nil
}

// subjects lists the references that say whom a resource is about.
func subjects(e entry) []val {
	names := []string{"subject", "patient", "beneficiary"}
	switch e.typ {
	case "Task":
		names = append(names, "for")
	case "ResearchSubject":
		names = append(names, "individual")
	}
	var out []val
	for _, name := range names {
		for ref := range e.res.get(name).items() {
			out = append(out, ref)
		}
	}
	return out
}

// SubjectOf returns the id of the patient that an NDJSON resource is about;
// for a Patient its own. ok is false for resources that are about nobody
// (an Organization). It reports a Refusal for a reference that is not
// Patient/<id>.
func SubjectOf(r Resource) (id string, ok bool, err error) {
	e, _, err := parseOne(r.Raw)
	if err != nil {
		return "", false, err
	}
	return subjectOf(e)
}

func subjectOf(e entry) (id string, ok bool, err error) {
	if e.typ == "Patient" {
		if _, err := med.ParsePatientID(e.id); err != nil {
			return "", false, refuse("the patient has no legal id")
		}
		return e.id, true, nil
	}
	if refs := subjects(e); len(refs) > 0 {
		ref := refs[0]
		if err := judgeForm(ref); err != nil {
			return "", false, err
		}
		id, named := strings.CutPrefix(unversioned(ref.get("reference").str()), "Patient/")
		if !named {
			return "", false, refuse("the subject is not Patient/<id>")
		}
		return id, true, nil
	}
	if KindOf(e.typ) != med.KindOther {
		return "", false, refuse("the resource names no patient")
	}
	return "", false, nil
}

// judgeForm refuses references that could lead out of the bundle, and with it
// out of the practice.
func judgeForm(ref val) error {
	s := ref.get("reference").str()
	switch {
	case s == "":
		return refuse("the subject is not a literal reference")
	case strings.Contains(s, "?"):
		return refuse("the subject is a conditional reference")
	case strings.HasPrefix(s, "#"):
		return refuse("the subject is a contained resource")
	case strings.Contains(s, "://"):
		return refuse("the subject is an absolute URL")
	}
	return nil
}

// unversioned drops the version of a versioned reference.
func unversioned(ref string) string {
	ref, _, _ = strings.Cut(ref, "/_history/")
	return ref
}

// Bundle returns what was gathered. It reports a Refusal when there was no
// patient, and for the first resource that is about somebody else.
func (g *Gatherer) Bundle() (*Bundle, error) {
	if !g.hasOne {
		return nil, at(&Refusal{Reason: "no patient", cause: ErrNoPatient}, Whole, 0)
	}
	for _, o := range g.owners {
		ref := unversioned(o.ref)
		if ref != "Patient/"+g.patient.id && ref != g.patient.fullURL {
			return nil, &Refusal{Place: o.place, Index: o.index, Reason: "the resource is about another subject than the bundle's patient"}
		}
	}
	for i := range g.out.Records {
		if r := &g.out.Records[i]; tells(g.ids[i], g.telling) {
			r.ID = digestID(r.Type + "\x00" + g.ids[i])
		}
	}
	g.distinctIDs()
	// The label of a bundle is the highest of its resources'. If none of them
	// carries it, all must be taken to.
	if g.whole.labelled && !g.labelled && g.whole.sensitivity != med.SensitivityNormal {
		g.out.Patient.Sensitivity = phi(string(med.SensitivityRestricted))
		for i := range g.out.Records {
			g.out.Records[i].Sensitivity = med.Strictest(g.out.Records[i].Sensitivity, g.whole.sensitivity)
		}
	}
	g.out.Patient.SourceID = phi(g.patient.id)
	g.out.Patient.Insurance = g.coverage.best()
	g.out.Patient.Diagnosis = Diagnosis(g.out.Records)
	out := g.out
	return &out, nil
}

// distinctIDs puts the type before ids that two types share, which happens to
// UUIDs only where a source derives one resource from another. Resources that
// have no id and are equal in every byte are counted.
func (g *Gatherer) distinctIDs() {
	uses := make(map[med.RecordID]int, len(g.out.Records))
	for _, r := range g.out.Records {
		uses[r.ID]++
	}
	taken := make(map[med.RecordID]int)
	for i := range g.out.Records {
		r := &g.out.Records[i]
		if uses[r.ID] == 1 {
			continue
		}
		r.ID = typedID(r.Type, string(r.ID))
		if taken[r.ID]++; taken[r.ID] > 1 {
			r.ID = typedID(r.Type, string(r.ID)+"."+strconv.Itoa(taken[r.ID]))
		}
	}
}
