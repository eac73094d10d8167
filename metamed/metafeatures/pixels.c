/* What metamed measures on the pixels of every image, compiled: `_metamed_pixels`.
 *
 * metamed/metafeatures/kernels.py says what the numbers mean, turns sums into statistics, and has the same in numpy,
 * which is used where this could not be built. Values agree because grey levels are single-precision numbers computed
 * by the same operations in the same order (whole numbers for 8-bit images, hence exact), and because everything is
 * summed in double precision. Nothing here keeps the interpreter's lock while it works, or allocates per image.
 */
#define Py_LIMITED_API 0x030B0000 /* one build serves Python 3.11 and all later ones */
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Functions marked WIDE are compiled for several generations of x86 processors; the best one is chosen when loaded. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12
#define WIDE __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define WIDE
#endif

/* fourier.c */
typedef struct Spectrum Spectrum;
Spectrum *spectrum_new(int height, int width, const int32_t *order, const float *weight, int end, const int32_t *starts,
                       int rings);
void ring_power(Spectrum *s, const float *image, double *out);
void spectrum_free(Spectrum *s);

enum { VERSION = 3 };        /* kernels.py uses no other build than its own */
enum { STRIP = 2048 };       /* pixels converted together */
enum { BANKS = 4 };          /* equal pixels in a row would wait for one counter: neighbours have different ones */
enum { LEVELS = 32, CELLS = LEVELS * LEVELS, OFFSETS = 8, PROPERTIES = 6 };
enum { QUANTILES = 7, SIDE = 16, CODES = 256 };
enum { /* sums of an image, as kernels.SUMS names them */
    MEAN, SECOND, THIRD, FOURTH, LOWEST, HIGHEST,                    /* of grey levels */
    DXDX, DYDY, DXDY, SLOPE, LAPLACIAN, NOISE,                       /* of inner pixels; differences of two pixels */
    NEIGHBOURS, STEP_X, STEP_Y, BORDER_X, BORDER_Y,                  /* of pairs of pixels side by side */
    SATURATION, CHANNEL, SQUARE = CHANNEL + 3, CUBE = SQUARE + 3,    /* of red, green, blue */
    PRODUCT = CUBE + 3, SUMS = PRODUCT + 3                           /* red-green, red-blue, green-blue */
};
static const int STEPS[OFFSETS][2] = {{0, 1}, {1, 1}, {1, 0}, {1, -1}, {0, 3}, {2, 2}, {3, 0}, {2, -2}};
static const double PLACES[QUANTILES] = {0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99};

typedef struct {
    char type; /* of pixels: B uint8, H uint16, f float32; I uint8, the three channels of a pixel side by side */
    int channels, height, width, rings;
    size_t pixels;
    float low, step; /* pixel value of black, and of how much a 255th of the way to white adds */
    const float *window;
} Shape;

typedef struct { /* room for one image */
    float *level, *bend, *sorted;
    uint8_t *code, *coarse;
    uint16_t *key, *keys;
    double *row;
    float strip[3][STRIP];
    uint32_t cells[2][BANKS][CELLS], codes[BANKS][CODES];
} Work;

/* -- grey levels and colour ----------------------------------------------------------------------------------------- */

WIDE static void separate(const uint8_t *rgb, int count, float *red, float *green, float *blue)
{
    for (int i = 0; i < count; i++) red[i] = rgb[3 * i], green[i] = rgb[3 * i + 1], blue[i] = rgb[3 * i + 2];
}

/* Pixels in 0-255, whatever their type. */
WIDE static void widen(const Shape *s, const void *image, size_t from, int count, float *out)
{
    const float low = s->low, step = s->step;
    if (s->type == 'B')
        for (int i = 0; i < count; i++) out[i] = ((const uint8_t *)image)[from + i];
    else if (s->type == 'H')
        for (int i = 0; i < count; i++) out[i] = ((const uint16_t *)image)[from + i];
    else
        for (int i = 0; i < count; i++) out[i] = ((const float *)image)[from + i];
    if (low != 0 || step != 1)
        for (int i = 0; i < count; i++) out[i] = (out[i] - low) / step;
}

WIDE static void luma(const float *r, const float *g, const float *b, int count, float *level)
{
    for (int i = 0; i < count; i++) level[i] = r[i] * 299.0f + g[i] * 587.0f + b[i] * 114.0f;
}

WIDE static void scale_into(float *level, const float *plane, int count, float factor, int first)
{
    if (first)
        for (int i = 0; i < count; i++) level[i] = plane[i] * factor;
    else
        for (int i = 0; i < count; i++) level[i] += plane[i] * factor;
}

WIDE static void powers(const float *plane, int count, double *sums)
{
    double one = 0, two = 0, three = 0;
#pragma omp simd reduction(+ : one, two, three)
    for (int i = 0; i < count; i++) {
        double v = plane[i];
        one += v, two += v * v, three += v * v * v;
    }
    sums[CHANNEL] += one, sums[SQUARE] += two, sums[CUBE] += three;
}

WIDE static void colour(const float *r, const float *g, const float *b, int count, double *sums)
{
    double rg = 0, rb = 0, gb = 0, saturation = 0;
#pragma omp simd reduction(+ : rg, rb, gb, saturation)
    for (int i = 0; i < count; i++) {
        float high = r[i] > g[i] ? r[i] : g[i], low = r[i] < g[i] ? r[i] : g[i];
        high = high > b[i] ? high : b[i], low = low < b[i] ? low : b[i];
        saturation += (high - low) / (high > 0 ? high : 1);
        rg += (double)r[i] * g[i], rb += (double)r[i] * b[i], gb += (double)g[i] * b[i];
    }
    sums[SATURATION] += saturation;
    sums[PRODUCT] += rg, sums[PRODUCT + 1] += rb, sums[PRODUCT + 2] += gb;
}

/* Levels are a thousand times the grey value in 0-255: red 299, green 587, blue 114; the mean of any other channels. */
static void levels(const Shape *s, const void *image, Work *w, double *sums)
{
    for (size_t from = 0; from < s->pixels; from += STRIP) {
        int count = (int)(s->pixels - from < STRIP ? s->pixels - from : STRIP);
        if (s->type == 'I') separate((const uint8_t *)image + 3 * from, count, w->strip[0], w->strip[1], w->strip[2]);
        for (int c = 0; c < s->channels; c++) {
            float *plane = w->strip[c % 3];
            if (s->type != 'I') widen(s, image, c * s->pixels + from, count, plane);
            if (s->channels == 3) powers(plane, count, sums + c);
            else scale_into(w->level + from, plane, count, 1000.0f / s->channels, c == 0);
        }
        if (s->channels == 3) {
            luma(w->strip[0], w->strip[1], w->strip[2], count, w->level + from);
            colour(w->strip[0], w->strip[1], w->strip[2], count, sums);
        }
    }
}

WIDE static void quantise(const float *level, size_t n, uint8_t *code, uint8_t *coarse)
{
    for (size_t i = 0; i < n; i++) {
        float v = level[i] * 0.001f + 0.500483f; /* plain.HALF */
        v = v < 0 ? 0 : v > 255 ? 255 : v;
        code[i] = (uint8_t)(int)v;
    }
    for (size_t i = 0; i < n; i++) coarse[i] = code[i] >> 3;
}

/* -- counting ------------------------------------------------------------------------------------------------------- */

static void count_codes(const uint8_t *code, size_t n, uint32_t bank[BANKS][CODES])
{
    size_t i = 0;
    for (; i + 4 <= n; i += 4) {
        bank[0][code[i]]++, bank[1][code[i + 1]]++;
        bank[2][code[i + 2]]++, bank[3][code[i + 3]]++;
    }
    for (; i < n; i++) bank[0][code[i]]++;
}

/* Keys of two offsets together: a counter that has just been raised is not ready to be raised again. */
static void count_keys(const uint16_t *one, int n_one, uint32_t first[BANKS][CELLS], const uint16_t *other, int n_other,
                       uint32_t second[BANKS][CELLS])
{
    int i = 0, common = n_one < n_other ? n_one : n_other;
    for (; i + 4 <= common; i += 4) {
        first[0][one[i]]++, second[0][other[i]]++, first[1][one[i + 1]]++, second[1][other[i + 1]]++;
        first[2][one[i + 2]]++, second[2][other[i + 2]]++, first[3][one[i + 3]]++, second[3][other[i + 3]]++;
    }
    for (int k = i; k < n_one; k++) first[k % BANKS][one[k]]++;
    for (int k = i; k < n_other; k++) second[k % BANKS][other[k]]++;
}

static void merge_codes(uint32_t bank[BANKS][CODES], uint32_t *total)
{
    for (int k = 0; k < CODES; k++) total[k] = bank[0][k] + bank[1][k] + bank[2][k] + bank[3][k];
    memset(bank, 0, sizeof(uint32_t) * BANKS * CODES);
}

/* -- moments and quantiles ------------------------------------------------------------------------------------------ */

WIDE static void moments(const float *level, size_t n, double *sums)
{
    double sum = 0, second = 0, third = 0, fourth = 0;
    float low = level[0], high = level[0];
#pragma omp simd reduction(+ : sum) reduction(min : low) reduction(max : high)
    for (size_t i = 0; i < n; i++) {
        sum += level[i];
        low = level[i] < low ? level[i] : low, high = level[i] > high ? level[i] : high;
    }
    const double mean = sum / n;
#pragma omp simd reduction(+ : second, third, fourth)
    for (size_t i = 0; i < n; i++) {
        double z = level[i] - mean, square = z * z;
        second += square, third += square * z, fourth += square * square;
    }
    sums[MEAN] = mean, sums[LOWEST] = low, sums[HIGHEST] = high;
    sums[SECOND] = second, sums[THIRD] = third, sums[FOURTH] = fourth;
}

/* The k-th smallest of n values, which are reordered (Hoare's selection; equal values cannot slow it down). */
static float smallest(float *v, size_t n, size_t k)
{
    size_t from = 0, to = n - 1;
    while (from < to) {
        float pivot = v[from + (to - from) / 2];
        size_t i = from, j = to;
        for (;;) {
            while (v[i] < pivot) i++;
            while (v[j] > pivot) j--;
            if (i >= j) break;
            float swap = v[i];
            v[i++] = v[j], v[j--] = swap;
        }
        if (k <= j) to = j;
        else from = j + 1;
    }
    return v[k];
}

/* Levels of one code, in any order: few of the pixels decide where a quantile lies. */
static size_t gather(const uint8_t *codes, const float *level, size_t n, int code, size_t expected, float *out)
{
    size_t found = 0;
    if (expected > n / 16) {
        for (size_t i = 0; i < n && found < expected; i++) out[found] = level[i], found += codes[i] == code;
        return found;
    }
    for (const uint8_t *at = codes; found < expected; at++) {
        at = memchr(at, code, codes + n - at);
        out[found++] = level[at - codes];
    }
    return found;
}

static void quantiles(const Shape *s, Work *w, const uint32_t *histogram, double *out)
{
    int code = 0, gathered = -1;
    size_t below = 0, found = 0;
    for (int q = 0; q < QUANTILES; q++) { /* between the two nearest pixels, as numpy.percentile */
        double place = PLACES[q] * (s->pixels - 1), value[2];
        for (int next = 0; next < 2; next++) {
            size_t k = (size_t)place + next;
            if (k >= s->pixels) k = s->pixels - 1;
            int c = code;
            size_t before = below;
            while (before + histogram[c] <= k) before += histogram[c++];
            if (c != gathered) found = gather(w->code, w->level, s->pixels, c, histogram[c], w->sorted), gathered = c;
            value[next] = smallest(w->sorted, found, k - before);
            if (next == 0) code = c, below = before;
        }
        out[q] = value[0] + (value[1] - value[0]) * (place - floor(place));
    }
}

/* -- texture -------------------------------------------------------------------------------------------------------- */

/* A pair of coarse levels (a, b) is counted by |a - b| and the smaller one: the matrix is symmetric, and all pairs of
   one difference lie in one row. */
WIDE static void pair_keys(const uint8_t *a, const uint8_t *b, int count, uint16_t *key)
{
    for (int i = 0; i < count; i++) {
        uint8_t low = a[i] < b[i] ? a[i] : b[i], high = a[i] < b[i] ? b[i] : a[i];
        key[i] = (uint16_t)((high - low) * LEVELS + low);
    }
}

/* Of one offset: sums of squared and absolute difference, 1 / (1 + square), squares of the symmetric matrix, a + b,
   a^2 + b^2. The counters are left empty. */
WIDE static void properties(uint32_t bank[BANKS][CELLS], double *out)
{
    memset(out, 0, PROPERTIES * sizeof *out);
    for (int d = 0; d < LEVELS; d++) {
        int32_t row[LEVELS], any = 0;
        for (int m = 0; m < LEVELS; m++) {
            int cell = d * LEVELS + m;
            any |= row[m] = (int32_t)(bank[0][cell] + bank[1][cell] + bank[2][cell] + bank[3][cell]);
        }
        if (!any) continue;
        double count = 0, low = 0, low2 = 0, squares = 0;
#pragma omp simd reduction(+ : count, low, low2, squares)
        for (int m = 0; m < LEVELS; m++) {
            double n = row[m];
            count += n, low += n * m, low2 += n * m * m, squares += n * n;
        }
        out[0] += (double)d * d * count;
        out[1] += d * count;
        out[2] += count / (1 + d * d);
        out[3] += d ? squares / 2 : squares;
        out[4] += 2 * low + d * count;
        out[5] += 2 * low2 + 2 * d * low + (double)d * d * count;
    }
    memset(bank, 0, sizeof(uint32_t) * BANKS * CELLS);
}

/* Keys of the pairs that begin in row y, with the pixel at an offset; gives how many there are. */
static int row_keys(const Shape *s, const uint8_t *coarse, const int *offset, int y, uint16_t *key)
{
    int dy = offset[0], dx = offset[1], count = s->width - abs(dx);
    if (y + dy >= s->height) return 0;
    const uint8_t *row = coarse + (size_t)y * s->width + (dx < 0 ? -dx : 0);
    pair_keys(row, row + (size_t)dy * s->width + dx, count, key);
    return count;
}

static void cooccurrence(const Shape *s, Work *w, double *out)
{
    for (int k = 0; k < OFFSETS; k += 2) {
        for (int y = 0; y < s->height; y++) {
            int one = row_keys(s, w->coarse, STEPS[k], y, w->key), other = row_keys(s, w->coarse, STEPS[k + 1], y, w->keys);
            count_keys(w->key, one, w->cells[0], w->keys, other, w->cells[1]);
        }
        properties(w->cells[0], out + k * PROPERTIES), properties(w->cells[1], out + (k + 1) * PROPERTIES);
    }
}

/* Which of the eight points around a pixel are as bright, as bits in circular order. The diagonal ones lie at 0.70711
   pixels and are interpolated: of the sum of both sides, s, and the corner, t, both less the centre, 29289 s + 70711 t
   has to reach 0. In 16 bits that is s + 2 t + floor(0.41425 t), exactly so for all t of 8-bit levels. */
static inline int16_t diagonal(int16_t s, int16_t t) { return (int16_t)(s + 2 * t + (int16_t)((t * 27148) >> 16)); }

WIDE static void pattern_row(const uint8_t *up, const uint8_t *here, const uint8_t *down, int count, uint8_t *code)
{
    for (int x = 1; x <= count; x++) {
        int16_t c = here[x], n = up[x] - c, s = down[x] - c, e = here[x + 1] - c, w = here[x - 1] - c;
        int16_t ne = diagonal(n + e, up[x + 1] - c), nw = diagonal(n + w, up[x - 1] - c);
        int16_t se = diagonal(s + e, down[x + 1] - c), sw = diagonal(s + w, down[x - 1] - c);
        code[x - 1] = (uint8_t)((e >= 0) | (ne >= 0) << 1 | (n >= 0) << 2 | (nw >= 0) << 3 | (w >= 0) << 4 |
                                (sw >= 0) << 5 | (s >= 0) << 6 | (se >= 0) << 7);
    }
}

static void patterns(const Shape *s, Work *w, uint32_t *out)
{
    uint8_t *code = (uint8_t *)w->key;
    for (int y = 1; y < s->height - 1; y++) {
        const uint8_t *here = w->code + (size_t)y * s->width;
        pattern_row(here - s->width, here, here + s->width, s->width - 2, code);
        count_codes(code, s->width - 2, w->codes);
    }
    merge_codes(w->codes, out);
}

WIDE static void bend_row(const float *l, int width, float *bend)
{
    for (int x = 1; x < width - 1; x++) bend[x] = l[x + 1] - 2 * l[x] + l[x - 1];
}

WIDE static void inner_row(const float *up, const float *here, const float *down, const float *bend, int width, double *sums)
{
    const float *bend_up = bend - width, *bend_down = bend + width;
    double xx = 0, yy = 0, xy = 0, slope = 0, laplacian = 0, noise = 0;
#pragma omp simd reduction(+ : xx, yy, xy, slope, laplacian, noise)
    for (int x = 1; x < width - 1; x++) {
        float dx = here[x + 1] - here[x - 1], dy = down[x] - up[x];
        float bent = bend[x] + (down[x] - 2 * here[x] + up[x]), rough = bend_down[x] - 2 * bend[x] + bend_up[x];
        xx += (double)dx * dx, yy += (double)dy * dy, xy += (double)dx * dy;
        slope += sqrtf(dx * dx + dy * dy), laplacian += (double)bent * bent, noise += fabsf(rough);
    }
    sums[DXDX] += xx, sums[DYDY] += yy, sums[DXDY] += xy;
    sums[SLOPE] += slope, sums[LAPLACIAN] += laplacian, sums[NOISE] += noise;
}

WIDE static void steps_along(const float *here, int width, double mean, double *sums)
{
    double step = 0, product = 0;
#pragma omp simd reduction(+ : step, product)
    for (int x = 0; x < width - 1; x++) {
        step += fabsf(here[x + 1] - here[x]);
        product += (here[x + 1] - mean) * (here[x] - mean);
    }
    for (int x = 7; x < width - 1; x += 8) sums[BORDER_X] += fabsf(here[x + 1] - here[x]);
    sums[STEP_X] += step, sums[NEIGHBOURS] += product;
}

WIDE static void steps_down(const float *here, const float *down, int y, int width, double mean, double *sums)
{
    double step = 0, product = 0;
#pragma omp simd reduction(+ : step, product)
    for (int x = 0; x < width; x++) {
        step += fabsf(down[x] - here[x]);
        product += (down[x] - mean) * (here[x] - mean);
    }
    if (y % 8 == 7) sums[BORDER_Y] += step;
    sums[STEP_Y] += step, sums[NEIGHBOURS] += product;
}

static void differences(const Shape *s, Work *w, double *sums)
{
    const int width = s->width;
    for (int y = 0; y < s->height; y++) bend_row(w->level + (size_t)y * width, width, w->bend + (size_t)y * width);
    for (int y = 0; y < s->height; y++) {
        const float *here = w->level + (size_t)y * width;
        steps_along(here, width, sums[MEAN], sums);
        if (y + 1 < s->height) steps_down(here, here + width, y, width, sums[MEAN], sums);
        if (y && y + 1 < s->height)
            inner_row(here - width, here, here + width, w->bend + (size_t)y * width, width, sums);
    }
}

/* -- thumbnails and spectra ----------------------------------------------------------------------------------------- */

WIDE static void add_row(const float *level, int width, double *row)
{
    for (int x = 0; x < width; x++) row[x] += level[x];
}

/* Where cell k of `cells` begins and ends on `size` pixels; cells repeat pixels where the image is smaller. */
static int edge(int k, int cells, int size) { return (int)((int64_t)k * size / cells); }
static int end_of(int k, int cells, int size) { return edge(k + 1, cells, size) > edge(k, cells, size) ? edge(k + 1, cells, size) : edge(k, cells, size) + 1; }

static void cell_means(const double *row, int rows, int width, int cells, float *out)
{
    for (int k = 0; k < cells; k++) {
        double sum = 0;
        int from = edge(k, cells, width), to = end_of(k, cells, width);
        for (int x = from; x < to; x++) sum += row[x];
        out[k] = (float)(sum / ((double)rows * (to - from)));
    }
}

/* Area means on 16 x 16 cells, and on 16 x 17 for the hash. */
static void thumbnail(const Shape *s, Work *w, float *square, float *wide)
{
    for (int k = 0; k < SIDE; k++) {
        int from = edge(k, SIDE, s->height), to = end_of(k, SIDE, s->height);
        memset(w->row, 0, s->width * sizeof *w->row);
        for (int y = from; y < to; y++) add_row(w->level + (size_t)y * s->width, s->width, w->row);
        cell_means(w->row, to - from, s->width, SIDE, square + k * SIDE);
        cell_means(w->row, to - from, s->width, SIDE + 1, wide + k * (SIDE + 1));
    }
}

/* Levels times the window, less the mean under it, for the Fourier transform. */
WIDE static void windowed(const float *level, const float *window, size_t n, float *out)
{
    double sum = 0, weight = 0;
#pragma omp simd reduction(+ : sum, weight)
    for (size_t i = 0; i < n; i++) sum += (double)level[i] * window[i], weight += window[i];
    const float mean = (float)(sum / weight);
    for (size_t i = 0; i < n; i++) out[i] = (level[i] - mean) * window[i];
}

/* -- volumes --------------------------------------------------------------------------------------------------------- */

WIDE static void spread_plane(const uint8_t *empty, const uint8_t *from, uint8_t *to, size_t n)
{
    for (size_t i = 0; i < n; i++) to[i] |= from[i] & empty[i];
}

static void spread_row(const uint8_t *empty, uint8_t *row, int n)
{
    if (!memcmp(empty, row, n)) return; /* all of it is outside already: so most rows are */
    for (int x = 1; x < n; x++) row[x] |= row[x - 1] & empty[x];
    for (int x = n - 2; x >= 0; x--) row[x] |= row[x + 1] & empty[x];
}

/* From the faces of a volume along each axis, there and back; what is empty and not reached so far stays. */
static void sweep(const uint8_t *empty, uint8_t *outside, int depth, int height, int width)
{
    size_t plane = (size_t)height * width;
    for (int z = 1; z < depth; z++) spread_plane(empty + z * plane, outside + (z - 1) * plane, outside + z * plane, plane);
    for (int z = depth - 2; z >= 0; z--)
        spread_plane(empty + z * plane, outside + (z + 1) * plane, outside + z * plane, plane);
    for (int z = 0; z < depth; z++) {
        const uint8_t *e = empty + z * plane;
        uint8_t *o = outside + z * plane;
        for (int y = 1; y < height; y++) spread_plane(e + (size_t)y * width, o + (size_t)(y - 1) * width, o + (size_t)y * width, width);
        for (int y = height - 2; y >= 0; y--)
            spread_plane(e + (size_t)y * width, o + (size_t)(y + 1) * width, o + (size_t)y * width, width);
        for (int y = 0; y < height; y++) spread_row(e + (size_t)y * width, o + (size_t)y * width, width);
    }
}

WIDE static size_t count_ones(const uint8_t *v, size_t n)
{
    size_t sum = 0;
    for (size_t i = 0; i < n; i++) sum += v[i];
    return sum;
}

/* -- doors to Python ------------------------------------------------------------------------------------------------ */

static int make_room(const Shape *s, Work *w)
{
    size_t n = s->pixels;
    memset(w, 0, sizeof *w);
    w->level = malloc(n * sizeof(float)), w->bend = malloc(n * sizeof(float)), w->sorted = malloc(n * sizeof(float));
    w->code = malloc(n), w->coarse = malloc(n);
    w->key = malloc(s->width * sizeof(uint16_t)), w->keys = malloc(s->width * sizeof(uint16_t));
    w->row = malloc(s->width * sizeof(double));
    return w->level && w->bend && w->sorted && w->code && w->coarse && w->key && w->keys && w->row;
}

static void free_room(Work *w)
{
    free(w->level), free(w->bend), free(w->sorted), free(w->code), free(w->coarse), free(w->key), free(w->keys), free(w->row);
}

typedef struct {
    double *sums, *pairs, *quantiles, *power;
    float *square, *wide;
    uint32_t *histogram, *patterns;
} Out;

static void measure_image(const Shape *s, const void *image, Work *w, Spectrum *spectrum, size_t k, const Out *out)
{
    double *sums = out->sums + k * SUMS;
    uint32_t *histogram = out->histogram + k * CODES;
    memset(sums, 0, SUMS * sizeof *sums);
    levels(s, image, w, sums);
    quantise(w->level, s->pixels, w->code, w->coarse);
    count_codes(w->code, s->pixels, w->codes);
    merge_codes(w->codes, histogram);
    moments(w->level, s->pixels, sums);
    quantiles(s, w, histogram, out->quantiles + k * QUANTILES);
    cooccurrence(s, w, out->pairs + k * OFFSETS * PROPERTIES);
    patterns(s, w, out->patterns + k * CODES);
    differences(s, w, sums);
    thumbnail(s, w, out->square + k * SIDE * SIDE, out->wide + k * SIDE * (SIDE + 1));
    windowed(w->level, s->window, s->pixels, w->sorted);
    ring_power(spectrum, w->sorted, out->power + k * s->rings);
}

static PyObject *measure(PyObject *self, PyObject *args)
{
    Py_buffer images, window, tables[3], b[8]; /* tables: those of spectrum_new */
    Shape s;
    int type, n;
    if (!PyArg_ParseTuple(args, "y*C(iiii)ffy*y*y*y*w*w*w*w*w*w*w*w*", &images, &type, &n, &s.channels, &s.height,
                          &s.width, &s.low, &s.step, &window, tables, tables + 1, tables + 2, b, b + 1, b + 2, b + 3, b + 4,
                          b + 5, b + 6, b + 7))
        return NULL;
    Work *w = malloc(sizeof *w);
    Spectrum *spectrum = NULL;
    int room = 0, end = (int)(tables[0].len / 4);
    s.type = (char)type, s.pixels = (size_t)s.height * s.width, s.window = window.buf, s.rings = (int)(tables[2].len / 4);
    Out out = {b[0].buf, b[1].buf, b[2].buf, b[3].buf, b[4].buf, b[5].buf, b[6].buf, b[7].buf};
    size_t bytes = s.pixels * s.channels * (type == 'B' || type == 'I' ? 1 : type == 'H' ? 2 : 4);
    const size_t sizes[8] = {SUMS * 8, OFFSETS * PROPERTIES * 8, QUANTILES * 8, (size_t)s.rings * 8,
                             SIDE * SIDE * 4, SIDE * (SIDE + 1) * 4, CODES * 4, CODES * 4};
    int fit = w && s.height >= 4 && s.width >= 4 && (size_t)images.len == n * bytes && (size_t)window.len == s.pixels * 4;
    fit = fit && (type != 'I' || s.channels == 3) && tables[1].len == tables[0].len;
    for (int k = 0; k < 8; k++) fit = fit && (size_t)b[k].len == n * sizes[k];
    Py_BEGIN_ALLOW_THREADS
    if (fit) spectrum = spectrum_new(s.height, s.width, tables[0].buf, tables[1].buf, end, tables[2].buf, s.rings);
    room = fit && make_room(&s, w) && spectrum;
    for (int k = 0; room && k < n; k++) measure_image(&s, (const char *)images.buf + k * bytes, w, spectrum, k, &out);
    if (fit) free_room(w);
    spectrum_free(spectrum), free(w);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&images), PyBuffer_Release(&window);
    for (int k = 0; k < 3; k++) PyBuffer_Release(tables + k);
    for (int k = 0; k < 8; k++) PyBuffer_Release(b + k);
    if (!fit) PyErr_SetString(PyExc_ValueError, "buffers do not fit the shape");
    else if (!room) PyErr_NoMemory();
    if (!room) return NULL;
    Py_RETURN_NONE;
}

static PyObject *reach(PyObject *self, PyObject *args)
{
    Py_buffer empty, outside;
    int d, h, w;
    if (!PyArg_ParseTuple(args, "y*w*(iii)", &empty, &outside, &d, &h, &w)) return NULL;
    size_t n = (size_t)d * h * w, before, after = 0;
    int fit = (size_t)empty.len == n && (size_t)outside.len == n;
    Py_BEGIN_ALLOW_THREADS
    if (fit) do {
        before = after;
        sweep(empty.buf, outside.buf, d, h, w);
        after = count_ones(outside.buf, n);
    } while (after != before);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&empty), PyBuffer_Release(&outside);
    if (!fit) return PyErr_SetString(PyExc_ValueError, "buffers do not fit the shape"), NULL;
    Py_RETURN_NONE;
}

static PyMethodDef functions[] = {
    {"reach", reach, METH_VARARGS, "reach(empty, outside, shape): what is empty and connected joins what is outside."},
    {"measure", measure, METH_VARARGS, "measure(images, type, shape, low, step, window, order, weight, starts, *outputs): fills the outputs."},
    {NULL, NULL, 0, NULL},
};
static int ready(PyObject *module) { return PyModule_AddIntConstant(module, "VERSION", VERSION); }
static PyModuleDef_Slot slots[] = {{Py_mod_exec, ready}, {0, NULL}};
static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_metamed_pixels", "Sums over the pixels of images.", 0, functions, slots, NULL, NULL, NULL,
};
PyMODINIT_FUNC PyInit__metamed_pixels(void) { return PyModuleDef_Init(&definition); }
