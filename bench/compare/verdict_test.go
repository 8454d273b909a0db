package main

import "testing"

func TestVerdict(t *testing.T) {
	for _, c := range []struct {
		bars []bar
		want string
	}{
		{[]bar{atLeast(1, []float64{2, 3, 4}, []float64{2, 2, 2})}, "1.50 (1.00–2.00): holds"},
		{[]bar{atLeast(1, []float64{2, 1, 1}, []float64{2, 2, 1})}, "1.00 (0.50–1.00): holds"},
		{[]bar{atLeast(1, []float64{1, 2, 3}, []float64{2, 4, 2})}, "0.50 (0.50–1.50): even"},
		{[]bar{atLeast(1, []float64{1, 2}, []float64{2, 4})}, "0.50 (0.50–0.50): **missed**"},
		{[]bar{atMost(1.25, []float64{5}, []float64{4})}, "1.25: holds"},
		{[]bar{atMost(1.25, []float64{6}, []float64{4})}, "1.50: **missed**"},
		{[]bar{atLeast(1, []float64{2}, []float64{4}), atMost(1, []float64{2, 6, 6}, []float64{4, 4, 4})}, "0.50, 1.50 (0.50–1.50): **missed**"},
		{[]bar{worse(worse(bar{}, atMost(1, []float64{1}, []float64{4})), atMost(1, []float64{3}, []float64{4}))}, "0.75: holds"},
		{[]bar{worse(atLeast(1, []float64{5}, []float64{4}), atLeast(1, []float64{3}, []float64{4}))}, "0.75: **missed**"},
	} {
		if got := verdict(c.bars...); got != c.want {
			t.Errorf("verdict is %q, want %q", got, c.want)
		}
	}
}
