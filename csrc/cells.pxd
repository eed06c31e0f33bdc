"""Measure every cell of a label crop in one visit, while the crop is in cache.

Header only; shared by the ``split`` and ``measure`` kernels.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uintptr_t
from libc.stdlib cimport free
from libc.string cimport memset

from landscape cimport Span
from runs cimport CellRun
from shape cimport (
    Cell, Moments, add_run, border_share, finish_moments, hull_area, perimeter, trace_outline,
)
from vector cimport Ints, Vector, free_ints, free_vector, grown, reserve, reserve_ints

cdef enum:
    NO_IMAGE = 0
    UINT8 = 1
    UINT16 = 2
    FLOAT32 = 3
    STAIN_LANES = 4  # entries of a row of the stains' table
    STAIN_UNIT = 1 << 20  # fixed-point units of an optical density of one


cdef struct Results:
    # What the cells of many crops add up to.
    Cell* cells
    double* intensity  # cells × columns: sums by channel and by stain, then means; the stains' largest
    int64_t size  # cells
    int64_t capacity
    int64_t intensities  # capacity of `intensity`: batches may differ in columns
    Vector runs  # of CellRun
    Ints outline  # x, y
    # scratch, by cell of one crop or by row of one cell
    Moments* moments
    int64_t scratch_cells  # capacity of `moments`
    Ints border_counts  # cells × 4: border pixels by their share in the perimeter
    Ints extent
    Ints stack


cdef struct Sources:
    # Rows of the planes and of the image; row `y` of the image is at index `y - row0`.
    const uintptr_t* mask  # addresses, or NULL
    const uintptr_t* boundary
    const uintptr_t* density
    const uintptr_t* image
    const double* probability  # by mask byte
    int64_t row0
    int32_t kind  # of the image: UINT8…
    int32_t channels
    # What values of red, green and blue, of `levels` each, add to each of `stains` amounts; or NULL.
    const int32_t* stain_table
    int64_t levels
    int32_t stains


cdef inline int32_t columns_of(const Sources* sources) noexcept nogil:
    """Values that are measured of a cell: a mean for each channel, a mean and the largest for each stain."""
    return sources.channels + 2 * sources.stains


cdef inline void look_at_stains(Sources* sources, const int32_t[:, :, ::1] table, int32_t stains) noexcept:
    """Measure stains where there is a table of them and an image."""
    cdef bint given = table is not None and sources.kind != NO_IMAGE
    sources.stain_table = &table[0, 0, 0] if given else NULL
    sources.levels = table.shape[1] if given else 0
    sources.stains = stains if given else 0


cdef inline void free_results(Results* results) noexcept nogil:
    free(results.cells)
    free(results.intensity)
    free(results.moments)
    free_ints(&results.border_counts)
    free_vector(&results.runs)
    free_ints(&results.outline)
    free_ints(&results.extent)
    free_ints(&results.stack)
    memset(results, 0, sizeof(Results))


cdef inline int reserve_cells(Results* results, int64_t extra, int32_t columns) except -1 nogil:
    """Make room for ``extra`` more cells, and scratch for as many."""
    results.cells = <Cell*>grown(
        results.cells, &results.capacity, results.size + extra, sizeof(Cell), b"cells"
    )
    results.intensity = <double*>grown(
        results.intensity, &results.intensities, results.capacity * columns, sizeof(double), b"intensities"
    )
    results.moments = <Moments*>grown(
        results.moments, &results.scratch_cells, extra, sizeof(Moments), b"cells' moments"
    )
    reserve_ints(&results.border_counts, 4 * extra)
    return 0


cdef inline void add_intensity(const Sources* sources, int64_t y, int64_t x0, int64_t x1, double* sums) noexcept nogil:
    """Add the pixels ``[x0, x1)`` of image row ``y`` to the sum of each channel."""
    cdef uintptr_t row = sources.image[y - sources.row0]
    cdef int64_t i, n = x1 - x0, step = sources.channels
    cdef int32_t c
    cdef const uint8_t* bytes
    cdef const uint16_t* words
    cdef const float* floats
    cdef int64_t total = 0, second = 0, third = 0
    cdef double sum
    if sources.kind == UINT8 and step == 3:  # the common case in one pass
        bytes = <const uint8_t*>row + x0 * 3
        for i in range(n):
            total += bytes[3 * i]
            second += bytes[3 * i + 1]
            third += bytes[3 * i + 2]
        sums[0] += total
        sums[1] += second
        sums[2] += third
        return
    for c in range(sources.channels):
        total = 0
        if sources.kind == UINT8:
            bytes = <const uint8_t*>row + x0 * step + c
            for i in range(n):
                total += bytes[i * step]
            sums[c] += total
        elif sources.kind == UINT16:
            words = <const uint16_t*>row + x0 * step + c
            for i in range(n):
                total += words[i * step]
            sums[c] += total
        else:
            floats = <const float*>row + x0 * step + c
            sum = sums[c]
            for i in range(n):
                sum += floats[i * step]
            sums[c] = sum


cdef inline void add_stain_pixel(
    const int32_t* red, const int32_t* green, const int32_t* blue, int64_t* sums, int32_t* most
) noexcept nogil:
    """Add one pixel's amounts, the sum of a row of the table for each colour."""
    cdef int32_t lane, amount
    for lane in range(STAIN_LANES):
        amount = red[lane] + green[lane] + blue[lane]
        sums[lane] += amount
        most[lane] = max(most[lane], amount)


cdef inline void add_stains(
    const Sources* sources, int64_t y, int64_t x0, int64_t x1, double* sums, bint first
) noexcept nogil:
    """Add the pixels ``[x0, x1)`` of image row ``y`` to each stain's sum, and note its largest amount.

    Sums are whole numbers below 2^53, so they are exact and their order does not matter.
    """
    cdef uintptr_t row = sources.image[y - sources.row0]
    cdef const int32_t* red = sources.stain_table
    cdef const int32_t* green = red + sources.levels * STAIN_LANES
    cdef const int32_t* blue = green + sources.levels * STAIN_LANES
    cdef const uint8_t* bytes = <const uint8_t*>row
    cdef const uint16_t* words = <const uint16_t*>row
    cdef int64_t[STAIN_LANES] total
    cdef int32_t[STAIN_LANES] most
    cdef int64_t i
    cdef int32_t s, n = sources.stains
    for s in range(STAIN_LANES):
        total[s] = 0
        most[s] = -2147483647
    if sources.kind == UINT8:
        for i in range(3 * x0, 3 * x1, 3):
            add_stain_pixel(
                red + <int64_t>bytes[i] * STAIN_LANES, green + <int64_t>bytes[i + 1] * STAIN_LANES,
                blue + <int64_t>bytes[i + 2] * STAIN_LANES, total, most,
            )
    else:
        for i in range(3 * x0, 3 * x1, 3):
            add_stain_pixel(
                red + <int64_t>words[i] * STAIN_LANES, green + <int64_t>words[i + 1] * STAIN_LANES,
                blue + <int64_t>words[i + 2] * STAIN_LANES, total, most,
            )
    for s in range(n):
        sums[s] += total[s]
        sums[n + s] = most[s] if first else max(sums[n + s], <double>most[s])


cdef inline void finish_values(const Sources* sources, double* values, int64_t area) noexcept nogil:
    """Turn the sums of one cell of a number of pixels into means; optical densities get their unit."""
    cdef int32_t c, n = sources.channels + sources.stains
    for c in range(n):
        values[c] /= area
    for c in range(sources.channels, n):
        values[c] /= STAIN_UNIT
        values[c + sources.stains] /= STAIN_UNIT


cdef inline int measure_crop(
    const int32_t* labels,  # crop with a frame of at least one pixel without a cell (0 or less)
    uint8_t* border,  # scratch of the crop's size
    int64_t stride,
    int64_t begin,  # pixel (y0, x0) of the crop
    const Span* spans,  # where there are labels, with at least a pixel around them
    int64_t n_spans,
    int32_t y0,
    int32_t x0,
    int32_t height,
    int32_t n_cells,  # labels 1…n_cells, in raster order of their first pixels
    int32_t component,
    const Sources* sources,
    Results* results,
) except -1 nogil:
    """Append all cells of a crop to ``results``."""
    cdef int64_t first = results.size, i, s, at, from_, row_end
    cdef int32_t columns = columns_of(sources)
    cdef int32_t y, x, start, label, seen = 0, rows = 0
    cdef bint new
    cdef double* values
    cdef const uint8_t* mask
    cdef Cell* cell
    cdef Moments* moments
    cdef CellRun* run
    cdef double total, other
    if n_cells == 0:
        return 0
    reserve_cells(results, n_cells, columns)
    memset(results.intensity + first * columns, 0, n_cells * columns * sizeof(double))
    memset(results.border_counts.data, 0, n_cells * 4 * sizeof(int32_t))
    # 1. A pixel is on the border where a direct neighbour is something else.
    for s in range(n_spans):
        for i in range(spans[s].begin, spans[s].end):
            border[i] = (
                (labels[i] != labels[i - 1]) | (labels[i] != labels[i + 1])
                | (labels[i] != labels[i - stride]) | (labels[i] != labels[i + stride])
            )
    # 2. Sums over runs.
    for s in range(n_spans):
        at = spans[s].begin
        y = <int32_t>((at - begin) // stride) if at > begin else 0
        row_end = begin + (y + 1) * stride
        while at < spans[s].end:
            label = labels[at]
            if label <= 0:
                at += 1
                continue
            from_ = at
            at += 1
            while labels[at] == label:  # the frame ends it
                at += 1
            while from_ >= row_end:
                y += 1
                row_end += stride
            start = <int32_t>(from_ - (row_end - stride))
            x = <int32_t>(at - (row_end - stride))
            cell = results.cells + first + label - 1
            moments = results.moments + label - 1
            new = label > seen
            if new:
                seen = label
                memset(moments, 0, sizeof(Moments))
                cell.area = 0
                cell.y0 = y
                cell.first_x = start
                cell.x0 = start
                cell.x1 = x
                cell.component = component
            cell.area += x - start
            cell.x0 = min(cell.x0, start)
            cell.x1 = max(cell.x1, x)
            cell.y1 = y + 1
            add_run(moments, y - cell.y0, start - cell.first_x, x - cell.first_x)
            if sources.mask != NULL:
                mask = <const uint8_t*>sources.mask[y0 + y - sources.row0] + x0
                # Sums of probabilities are exact, so two that need not wait for each other will do.
                total = other = 0
                for i in range(start, x - 1, 2):
                    total += sources.probability[mask[i]]
                    other += sources.probability[mask[i + 1]]
                if (x - start) & 1:
                    total += sources.probability[mask[x - 1]]
                moments.probability += total + other
            if sources.kind != NO_IMAGE:
                values = results.intensity + (first + label - 1) * columns
                add_intensity(sources, y0 + y, x0 + start, x0 + x, values)
                if sources.stains:
                    add_stains(
                        sources, y0 + y, x0 + start, x0 + x, values + sources.channels, new
                    )
            for i in range(from_, at):
                if border[i]:
                    results.border_counts.data[(label - 1) * 4 + border_share(labels + i, border + i, stride)] += 1
            run = <CellRun*>reserve(&results.runs, 1, sizeof(CellRun), b"runs of cells")
            run.y = y0 + y
            run.x0 = x0 + start
            run.x1 = x0 + x
            run.cell = <int32_t>(first + label - 1)
            results.runs.size += 1
    # 3. Shape of each cell.
    reserve_ints(&results.extent, 2 * height)
    reserve_ints(&results.stack, 2 * height + 2)
    for i in range(n_cells):
        cell = results.cells + first + i
        trace_outline(
            labels + begin + cell.y0 * stride + cell.first_x, stride, y0 + cell.y0, x0 + cell.first_x,
            results.extent.data, &rows, &results.outline,
        )
        cell.outline_end = results.outline.size >> 1
        cell.solidity = cell.area / hull_area(results.extent.data, rows, results.stack.data)
        cell.perimeter = perimeter(results.border_counts.data + i * 4)
        finish_moments(results.moments + i, cell, y0 + cell.y0, x0 + cell.first_x)
        cell.y0 += y0
        cell.y1 += y0
        cell.x0 += x0
        cell.x1 += x0
        cell.first_x += x0
        finish_values(sources, results.intensity + (first + i) * columns, cell.area)
    results.size += n_cells
    return 0
