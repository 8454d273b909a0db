package main

import (
	"fmt"
	"slices"
	"strings"
)

// bar is what the ratios of runs next to each other, which had the same noise about them, are held against.
type bar struct {
	ratios []float64
	limit  float64
	most   bool // it may be no more than the limit; or else no less
}

// atLeast and atMost hold runs of a against those of b.
func atLeast(limit float64, a, b []float64) bar { return bar{ratios(a, b), limit, false} }
func atMost(limit float64, a, b []float64) bar  { return bar{ratios(a, b), limit, true} }

func ratios(a, b []float64) (all []float64) {
	for i := range a {
		all = append(all, a[i]/b[i])
	}
	return all
}

// margin is how far a ratio is on the right side.
func (b bar) margin(ratio float64) float64 {
	if b.most {
		return b.limit - ratio
	}
	return ratio - b.limit
}

// worse gives the bar that is held by less.
func worse(a, b bar) bar {
	if a.ratios == nil || b.margin(median(b.ratios)) < a.margin(median(a.ratios)) {
		return b
	}
	return a
}

func (b bar) String() string {
	s := fmt.Sprintf("%.2f", median(b.ratios))
	if len(b.ratios) > 1 {
		s += fmt.Sprintf(" (%.2f–%.2f)", slices.Min(b.ratios), slices.Max(b.ratios))
	}
	return s
}

// verdict says whether all bars are held: by the medians; within what the runs differ among themselves, which is even; or not.
// Of five runs the smallest and the largest have the true median between them in 94 cases of 100.
func verdict(bars ...bar) string {
	word := "holds"
	var said []string
	for _, b := range bars {
		said = append(said, b.String())
		if b.margin(median(b.ratios)) >= 0 {
			continue
		}
		if word != missed {
			word = "even"
		}
		if b.margin(slices.Min(b.ratios)) < 0 && b.margin(slices.Max(b.ratios)) < 0 {
			word = missed
		}
	}
	return strings.Join(said, ", ") + ": " + word
}

const missed = "**missed**"
