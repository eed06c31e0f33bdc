// Corrections of one field: what was deleted, merged and drawn, in the order in which it was done.

export class Corrections {
  constructor() {
    this.clear();
  }

  clear() {
    this.scene = null;
    this.field = null; // x0, y0, x1, y1 in pixels of the image
    this.done = []; // {kind: "delete" | "merge" | "draw", …}
    this.ring = []; // of the cell that is being drawn
    this.group = []; // of cells that are being merged
  }

  mark(scene, view) {
    this.clear();
    this.scene = scene;
    const [x0, y0, x1, y1] = view.map(Math.round);
    this.field = [Math.max(0, x0), Math.max(0, y0), Math.min(scene.width, x1), Math.min(scene.height, y1)];
    return this.field[2] > this.field[0] && this.field[3] > this.field[1];
  }

  get active() {
    return this.field !== null;
  }

  inside(x, y) {
    const [x0, y0, x1, y1] = this.field;
    return x >= x0 && x < x1 && y >= y0 && y < y1;
  }

  delete(cell) {
    if (!this.of("delete").some((item) => item.cell.label === cell.label)) this.done.push({ kind: "delete", cell });
  }

  /** Add a cell to the group that is being merged, or take it out. */
  pick(cell) {
    const known = this.group.findIndex((item) => item.label === cell.label);
    if (known >= 0) this.group.splice(known, 1);
    else this.group.push(cell);
  }

  finishMerge() {
    if (this.group.length > 1) this.done.push({ kind: "merge", cells: this.group });
    this.group = [];
  }

  finishDrawing() {
    if (this.ring.length > 2) this.done.push({ kind: "draw", ring: this.ring });
    this.ring = [];
  }

  undo() {
    if (this.ring.length) this.ring.pop();
    else if (this.group.length) this.group.pop();
    else this.done.pop();
  }

  of(kind) {
    return this.done.filter((item) => item.kind === kind);
  }

  get text() {
    const count = (kind) => this.of(kind).length;
    return `Field of ${this.field[2] - this.field[0]}×${this.field[3] - this.field[1]} pixels: `
      + `${count("delete")} deleted, ${count("merge")} merged, ${count("draw")} drawn`;
  }

  toJSON() {
    return {
      field: this.field,
      deleted: this.of("delete").map((item) => item.cell.label),
      merged: this.of("merge").map((item) => item.cells.map((cell) => cell.label)),
      drawn: this.of("draw").map((item) => item.ring),
    };
  }

  paint(pane, context) {
    if (!this.active || !pane.scenes.includes(this.scene)) return;
    const corner = (x, y) => pane.toScreen(x, y);
    const box = (x0, y0, x1, y1) => {
      const [a, b] = [corner(x0, y0), corner(x1, y1)];
      context.strokeRect(a.x, a.y, b.x - a.x, b.y - a.y);
      return [a, b];
    };
    context.lineWidth = 2;
    context.strokeStyle = "#ffffff";
    context.setLineDash([8, 5]);
    box(...this.field);
    context.setLineDash([]);
    for (const { cell } of this.of("delete")) {
      context.strokeStyle = "#ff5c6c";
      const [a, b] = box(cell.x0, cell.y0, cell.x1, cell.y1);
      line(context, [a, b]);
      line(context, [{ x: a.x, y: b.y }, { x: b.x, y: a.y }]);
    }
    const groups = [...this.of("merge").map((item) => item.cells), this.group];
    for (const cells of groups) {
      context.strokeStyle = "#ffb454";
      const centres = cells.map((cell) => {
        box(cell.x0, cell.y0, cell.x1, cell.y1);
        return corner((cell.x0 + cell.x1) / 2, (cell.y0 + cell.y1) / 2);
      });
      line(context, centres);
    }
    context.strokeStyle = "#7CFF14";
    for (const { ring } of this.of("draw")) line(context, [...ring, ring[0]].map(([x, y]) => corner(x, y)));
    line(context, this.ring.map(([x, y]) => corner(x, y)));
    for (const [x, y] of this.ring) {
      const at = corner(x, y);
      context.strokeRect(at.x - 2, at.y - 2, 4, 4);
    }
  }
}

function line(context, points) {
  context.beginPath();
  points.forEach((point, number) => (number ? context.lineTo(point.x, point.y) : context.moveTo(point.x, point.y)));
  context.stroke();
}
