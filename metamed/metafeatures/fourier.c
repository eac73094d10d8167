/* The power of the rings of frequencies of an image: a Fourier transform of several columns, then several rows at once.
 *
 * Stockham's steps of radix 4, 2 and any small odd one; Bluestein's detour over a power of two for lengths with a large
 * prime factor. In double precision: rings of a smooth image differ by more than single precision holds. Compiled into
 * `_metamed_pixels` together with pixels.c.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WIDE
#endif

#ifdef __GNUC__
#define ALWAYS_INLINE static inline __attribute__((always_inline))
#else
#define ALWAYS_INLINE static inline
#endif

enum { LANES = 8 };                /* transforms done at once: a register of AVX-512, two of AVX2 */
enum { LARGEST = 97, STEPS = 32 }; /* radix; above, a power of two is faster */
#ifdef _MSC_VER
#define restrict __restrict
#define EACH(l) for (int l = 0; l < LANES; l++)
#else
#define EACH(l) _Pragma("omp simd") for (int l = 0; l < LANES; l++)
#endif
typedef struct { double re[LANES], im[LANES]; } Lanes;
typedef struct { double re, im; } Root;

typedef struct { /* of one length */
    int length, room, steps, radix[STEPS];
    Root *unit;           /* the roots of one */
    Root *chirp, *answer; /* Bluestein's: exp(-i pi k^2 / n), and the transform of its conjugate; else NULL */
} Transform;

typedef struct Spectrum {
    int height, width, half, rings, end;
    const int32_t *order, *starts; /* of coefficients (width, half): those of one ring side by side, where rings start */
    const float *weight;
    Transform columns, rows;
    Lanes *work, *spare;
    double *re, *im; /* (half, width) */
    double *power;   /* (width, half) */
} Spectrum;

/* -- one step: `size` is what is left of the length, `stride` what is done ------------------------------------------- */

WIDE static void step_of_two(const Lanes *from, Lanes *restrict to, int size, int stride, const Root *unit)
{
    for (int j = 0; j < size / 2; j++) {
        const Root u = unit[j * stride];
        for (int q = 0; q < stride; q++) {
            const Lanes *a = from + q + stride * j, *b = a + stride * (size / 2);
            Lanes *one = to + q + stride * 2 * j, *other = one + stride;
            EACH(l) {
                double re = a->re[l] - b->re[l], im = a->im[l] - b->im[l];
                one->re[l] = a->re[l] + b->re[l], one->im[l] = a->im[l] + b->im[l];
                other->re[l] = re * u.re - im * u.im, other->im[l] = re * u.im + im * u.re;
            }
        }
    }
}

WIDE static void step_of_four(const Lanes *from, Lanes *restrict to, int size, int stride, const Root *unit)
{
    const int part = size / 4 * stride;
    for (int j = 0; j < size / 4; j++) {
        const Root u = unit[j * stride], v = unit[2 * j * stride], w = unit[3 * j * stride];
        for (int q = 0; q < stride; q++) {
            const Lanes *a = from + q + stride * j, *b = a + part, *c = b + part, *d = c + part;
            Lanes *zero = to + q + stride * 4 * j, *one = zero + stride, *two = one + stride, *three = two + stride;
            EACH(l) {
                double even = a->re[l] + c->re[l], even_im = a->im[l] + c->im[l];
                double odd = b->re[l] + d->re[l], odd_im = b->im[l] + d->im[l];
                double apart = a->re[l] - c->re[l], apart_im = a->im[l] - c->im[l];
                double turned = b->im[l] - d->im[l], turned_im = d->re[l] - b->re[l]; /* -i (b - d) */
                zero->re[l] = even + odd, zero->im[l] = even_im + odd_im;
                double re = apart + turned, im = apart_im + turned_im;
                one->re[l] = re * u.re - im * u.im, one->im[l] = re * u.im + im * u.re;
                re = even - odd, im = even_im - odd_im;
                two->re[l] = re * v.re - im * v.im, two->im[l] = re * v.im + im * v.re;
                re = apart - turned, im = apart_im - turned_im;
                three->re[l] = re * w.re - im * w.im, three->im[l] = re * w.im + im * w.re;
            }
        }
    }
}

/* Points t and radix - t share their products: sums take cosines, differences sines. */
ALWAYS_INLINE void step_of_odd(const Lanes *from, Lanes *restrict to, int radix, int size, int stride, const Root *unit)
{
    const int part = size / radix * stride, half = radix / 2, turn = size * stride / radix;
    Lanes sum[LARGEST / 2 + 1], apart[LARGEST / 2 + 1];
    for (int k = 0; k < part; k++) {
        const int j = k / stride, q = k % stride;
        const Lanes *in = from + k;
        Lanes *out = to + q + stride * radix * j, all = *in;
        for (int t = 1; t <= half; t++) {
            const Lanes *a = in + part * t, *b = in + part * (radix - t);
            EACH(l) {
                sum[t].re[l] = a->re[l] + b->re[l], sum[t].im[l] = a->im[l] + b->im[l];
                apart[t].re[l] = a->re[l] - b->re[l], apart[t].im[l] = a->im[l] - b->im[l];
                all.re[l] += sum[t].re[l], all.im[l] += sum[t].im[l];
            }
        }
        *out = all;
        for (int r = 1; r <= half; r++) {
            Lanes even = *in, odd = {{0}, {0}};
            for (int t = 1; t <= half; t++) {
                const Root u = unit[r * t % radix * turn];
                EACH(l) {
                    even.re[l] += u.re * sum[t].re[l], even.im[l] += u.re * sum[t].im[l];
                    odd.re[l] -= u.im * apart[t].im[l], odd.im[l] += u.im * apart[t].re[l];
                }
            }
            const Root u = unit[j * r * stride], v = unit[j * (radix - r) * stride];
            Lanes *one = out + stride * r, *other = out + stride * (radix - r);
            EACH(l) {
                double re = even.re[l] + odd.re[l], im = even.im[l] + odd.im[l];
                one->re[l] = re * u.re - im * u.im, one->im[l] = re * u.im + im * u.re;
                re = even.re[l] - odd.re[l], im = even.im[l] - odd.im[l];
                other->re[l] = re * v.re - im * v.im, other->im[l] = re * v.im + im * v.re;
            }
        }
    }
}

WIDE static void step_of_any(const Lanes *from, Lanes *restrict to, int radix, int size, int stride, const Root *unit)
{
    switch (radix) { /* loops of known length are unrolled */
    case 3: step_of_odd(from, to, 3, size, stride, unit); break;
    case 5: step_of_odd(from, to, 5, size, stride, unit); break;
    case 7: step_of_odd(from, to, 7, size, stride, unit); break;
    default: step_of_odd(from, to, radix, size, stride, unit);
    }
}

/* -- transforms of one length ---------------------------------------------------------------------------------------- */

/* Transforms `x`, which lies in one of the two buffers; gives the one in which the answer lies. */
static Lanes *steps(const Transform *f, Lanes *x, Lanes *other)
{
    for (int k = 0, size = f->room, stride = 1; k < f->steps; k++) {
        int radix = f->radix[k];
        if (radix == 4) step_of_four(x, other, size, stride, f->unit);
        else if (radix == 2) step_of_two(x, other, size, stride, f->unit);
        else step_of_any(x, other, radix, size, stride, f->unit);
        Lanes *swap = x;
        x = other, other = swap, size /= radix, stride *= radix;
    }
    return x;
}

static void turn(Lanes *x, Root u, double sign)
{
    EACH(l) {
        double re = x->re[l] * u.re - x->im[l] * u.im, im = x->re[l] * u.im + x->im[l] * u.re;
        x->re[l] = re, x->im[l] = sign * im;
    }
}

/* Bluestein 1970: a transform of any length as a convolution with a chirp, by transforms of a convenient length. The
   conjugate of a transform of the conjugate is its inverse. */
static Lanes *transform(const Transform *f, Lanes *x, Lanes *other)
{
    if (!f->chirp) return steps(f, x, other);
    const int n = f->length;
    for (int k = 0; k < n; k++) turn(x + k, f->chirp[k], 1);
    memset(x + n, 0, (f->room - n) * sizeof *x);
    Lanes *y = steps(f, x, other);
    for (int k = 0; k < f->room; k++) turn(y + k, f->answer[k], -1);
    y = steps(f, y, y == x ? other : x);
    for (int k = 0; k < n; k++) {
        EACH(l) y[k].im[l] = -y[k].im[l];
        turn(y + k, f->chirp[k], 1);
    }
    return y;
}

static Root root(double k, double n)
{
    double angle = -2 * 3.14159265358979323846 * k / n;
    return (Root){cos(angle), sin(angle)};
}

/* Steps for a length, radix 4 first; what is left of it where a prime factor is too large, else 1. */
static int factor(Transform *f, int length)
{
    for (; length % 4 == 0; length /= 4) f->radix[f->steps++] = 4;
    for (int p = 2; p <= LARGEST && length > 1; p += p == 2 ? 1 : 2)
        for (; length % p == 0; length /= p) f->radix[f->steps++] = p;
    return length;
}

static int plan_detour(Transform *f)
{
    const int n = f->length;
    for (f->room = 1; f->room < 2 * n - 1;) f->room *= 2;
    f->steps = 0, factor(f, f->room);
    f->chirp = malloc(n * sizeof *f->chirp), f->answer = malloc(f->room * sizeof *f->answer);
    return f->chirp && f->answer;
}

static void fill_detour(Transform *f, Lanes *x, Lanes *other)
{
    const int n = f->length, room = f->room;
    memset(x, 0, room * sizeof *x);
    for (int64_t k = 0; k < n; k++) {
        Root c = f->chirp[k] = root((double)(k * k % (2 * n)), 2.0 * n);
        x[k].re[0] = x[(room - k) % room].re[0] = c.re / room;
        x[k].im[0] = x[(room - k) % room].im[0] = -c.im / room;
    }
    Lanes *y = steps(f, x, other);
    for (int k = 0; k < room; k++) f->answer[k] = (Root){y[k].re[0], y[k].im[0]};
}

static int plan(Transform *f, int length)
{
    memset(f, 0, sizeof *f);
    f->length = f->room = length;
    if (factor(f, length) > 1 && !plan_detour(f)) return 0;
    f->unit = malloc(f->room * sizeof *f->unit);
    for (int k = 0; f->unit && k < f->room; k++) f->unit[k] = root(k, f->room);
    return f->unit != NULL;
}

static void free_plan(Transform *f) { free(f->unit), free(f->chirp), free(f->answer); }

/* -- images ----------------------------------------------------------------------------------------------------------- */

void spectrum_free(Spectrum *s)
{
    if (!s) return;
    free_plan(&s->columns), free_plan(&s->rows);
    free(s->work), free(s->spare), free(s->re), free(s->im), free(s->power), free(s);
}

/* Room and tables for images of this shape; NULL without memory. */
Spectrum *spectrum_new(int height, int width, const int32_t *order, const float *weight, int end, const int32_t *starts,
                       int rings)
{
    Spectrum *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->height = height, s->width = width, s->half = height / 2 + 1;
    s->order = order, s->weight = weight, s->end = end, s->starts = starts, s->rings = rings;
    size_t n = (size_t)s->half * width;
    int planned = plan(&s->columns, height) & plan(&s->rows, width);
    size_t room = s->columns.room > s->rows.room ? s->columns.room : s->rows.room;
    s->work = malloc(room * sizeof *s->work), s->spare = malloc(room * sizeof *s->spare);
    s->re = malloc(n * sizeof *s->re), s->im = malloc(n * sizeof *s->im), s->power = malloc(n * sizeof *s->power);
    if (!planned || !s->work || !s->spare || !s->re || !s->im || !s->power) return spectrum_free(s), NULL;
    if (s->columns.chirp) fill_detour(&s->columns, s->work, s->spare);
    if (s->rows.chirp) fill_detour(&s->rows, s->work, s->spare);
    return s;
}

/* Columns are real: two make one complex transform, the left half its real part, the right half the other. */
WIDE static void load_columns(const float *image, int height, int width, int from, int count, Lanes *x)
{
    const int right = (width + 1) / 2, pairs = from + right + count > width ? count - 1 : count;
    if (count < LANES || pairs < LANES) memset(x, 0, height * sizeof *x);
    for (int y = 0; y < height; y++) {
        const float *row = image + (size_t)y * width + from;
        for (int l = 0; l < count; l++) x[y].re[l] = row[l];
        for (int l = 0; l < pairs; l++) x[y].im[l] = row[right + l];
    }
}

WIDE static void split_columns(const Lanes *x, int height, int width, int from, int count, double *re, double *im)
{
    const int right = (width + 1) / 2, pairs = from + right + count > width ? count - 1 : count;
    for (int k = 0; k <= height / 2; k++) {
        const Lanes *a = x + k, *b = x + (height - k) % height;
        double *row = re + (size_t)k * width + from, *row_im = im + (size_t)k * width + from;
        for (int l = 0; l < count; l++) {
            row[l] = (a->re[l] + b->re[l]) / 2;
            row_im[l] = (a->im[l] - b->im[l]) / 2;
        }
        for (int l = 0; l < pairs; l++) {
            row[right + l] = (a->im[l] + b->im[l]) / 2;
            row_im[right + l] = (b->re[l] - a->re[l]) / 2;
        }
    }
}

WIDE static void load_rows(const double *re, const double *im, int width, int count, Lanes *x)
{
    for (int l = 0; l < count; l++)
        for (int k = 0; k < width; k++) x[k].re[l] = re[(size_t)l * width + k], x[k].im[l] = im[(size_t)l * width + k];
}

WIDE static void power_of(const Lanes *x, int width, int half, int count, double *power)
{
    for (int k = 0; k < width; k++)
        for (int l = 0; l < count; l++)
            power[(size_t)k * half + l] = x[k].re[l] * x[k].re[l] + x[k].im[l] * x[k].im[l];
}

/* Power of each ring of frequencies of an image (height, width). */
void ring_power(Spectrum *s, const float *image, double *out)
{
    const int pairs = (s->width + 1) / 2;
    for (int from = 0; from < pairs; from += LANES) {
        int count = pairs - from < LANES ? pairs - from : LANES;
        load_columns(image, s->height, s->width, from, count, s->work);
        Lanes *x = transform(&s->columns, s->work, s->spare);
        split_columns(x, s->height, s->width, from, count, s->re, s->im);
    }
    for (int from = 0; from < s->half; from += LANES) {
        int count = s->half - from < LANES ? s->half - from : LANES;
        load_rows(s->re + (size_t)from * s->width, s->im + (size_t)from * s->width, s->width, count, s->work);
        Lanes *x = transform(&s->rows, s->work, s->spare);
        power_of(x, s->width, s->half, count, s->power + from);
    }
    for (int r = 0; r < s->rings; r++) {
        double sum = 0;
        for (int i = s->starts[r], stop = r + 1 < s->rings ? s->starts[r + 1] : s->end; i < stop; i++)
            sum += s->power[s->order[i]] * s->weight[i];
        out[r] = sum;
    }
}
