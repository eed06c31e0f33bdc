// Panes: pictures that can be zoomed, each with layers of tiles from the server, all moved together.

const { OpenSeadragon } = window;

/** A pyramid of tiles as the server cuts it; `address` gives the address of a tile. */
function pyramid(scene, address) {
  return {
    width: scene.width,
    height: scene.height,
    tileSize: scene.tile,
    minLevel: 0,
    maxLevel: scene.zooms,
    getTileUrl: address,
  };
}

export class Pane {
  /**
   * @param {HTMLElement} parent where the pane goes
   * @param {object[]} scenes the results it shows: the picture of the first, the cells of all
   */
  constructor(parent, scenes, { onStart, onLead, onClick, onMove, onPaint }) {
    this.scenes = scenes;
    this.onStart = onStart;
    this.started = false; // whether there is anything to see, and so a view
    this.layers = new Map();
    this.orders = new WeakMap(); // of the tiled images: what lies above what
    this.element = document.createElement("div");
    this.element.className = "pane";
    this.element.innerHTML = '<h3></h3><div class="osd"></div><canvas></canvas>';
    this.element.querySelector("h3").textContent = scenes.map((scene) => scene.title).join(" + ");
    parent.append(this.element);
    this.canvas = this.element.querySelector("canvas");
    this.viewer = OpenSeadragon({
      element: this.element.querySelector(".osd"),
      showNavigationControl: false,
      crossOriginPolicy: false,
      immediateRender: true,
      imageLoaderLimit: 6,
      maxZoomPixelRatio: 16,
      imageSmoothingEnabled: false,
      gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
      gestureSettingsTouch: { clickToZoom: false },
      gestureSettingsPen: { clickToZoom: false },
      drawer: "canvas",
      preserveViewport: true,
    });
    this.viewer.canvas.setAttribute("aria-label", `Picture ${scenes[0].title}: arrow keys move, + and - zoom`);
    // The keys of the page's own commands must not move the picture.
    this.viewer.addHandler("canvas-key", (event) => {
      if (!/^(Arrow|\+|-|=)/.test(event.originalEvent.key)) event.preventDefaultAction = true;
    });
    this.viewer.addHandler("canvas-click", (event) => {
      if (event.quick) onClick(this, this.toImage(event.position), event.originalEvent);
    });
    for (const kind of ["pointerenter", "pointerdown", "wheel", "focusin"]) {
      this.element.addEventListener(kind, () => onLead(this), { capture: true, passive: true });
    }
    this.viewer.addHandler("viewport-change", () => this.started && onMove(this));
    this.viewer.addHandler("update-viewport", () => this.paint(onPaint));
    this.onPaint = onPaint;
  }

  /** Show a layer of tiles, in place of the one of the same name once its own tiles are there. */
  show(name, order, scene, address, opacity = 1) {
    const old = this.layers.get(name);
    if (old?.address.key === address.key) {
      old.item?.setOpacity(opacity);
      old.opacity = opacity;
      return;
    }
    const layer = { address, order, opacity, item: null, gone: false };
    this.layers.set(name, layer);
    this.viewer.addTiledImage({
      tileSource: pyramid(scene, address),
      opacity,
      success: ({ item }) => {
        if (layer.gone) return this.viewer.world.removeItem(item);
        layer.item = item;
        if (!this.started) {
          this.started = true;
          this.viewer.viewport.goHome(true);
          this.onStart(this);
        }
        this.orders.set(item, order);
        // Layers come in when they come in: each goes above all that belong below it.
        const { world } = this.viewer;
        const items = Array.from({ length: world.getItemCount() }, (_, number) => world.getItemAt(number));
        world.setItemIndex(item, items.filter((other) => other !== item && this.orders.get(other) <= order).length);
        if (layer.opacity !== opacity) item.setOpacity(layer.opacity);
        if (!old) return undefined;
        const replace = () => this.drop(old);
        if (item.getFullyLoaded()) replace();
        else {
          item.addOnceHandler("fully-loaded-change", replace);
          setTimeout(replace, 2500);
        }
        return undefined;
      },
    });
  }

  hide(name) {
    const layer = this.layers.get(name);
    if (layer) this.drop(layer);
    this.layers.delete(name);
  }

  drop(layer) {
    if (layer.item && this.viewer.world.getIndexOfItem(layer.item) >= 0) this.viewer.world.removeItem(layer.item);
    layer.gone = true;
    layer.item = null;
  }

  /** Place on the screen → pixels of the image. */
  toImage(position) {
    const { width } = this.scenes[0];
    const point = this.viewer.viewport.pointFromPixel(position, true);
    return { x: point.x * width, y: point.y * width };
  }

  /** Pixels of the image → place on the screen. */
  toScreen(x, y) {
    const { width } = this.scenes[0];
    return this.viewer.viewport.pixelFromPoint(new OpenSeadragon.Point(x / width, y / width), true);
  }

  /** What is on the screen, in pixels of the image: x0, y0, x1, y1. */
  get view() {
    const { width } = this.scenes[0];
    const bounds = this.viewer.viewport.getBounds(true);
    return [bounds.x, bounds.y, bounds.x + bounds.width, bounds.y + bounds.height].map((v) => v * width);
  }

  /** Pixels of the screen that one pixel of the image takes. */
  get magnification() {
    return (this.viewer.viewport.getZoom(true) * this.viewer.viewport.getContainerSize().x) / this.scenes[0].width;
  }

  goTo(x, y, magnification, immediately = false) {
    const { width } = this.scenes[0];
    const zoom = (magnification * width) / this.viewer.viewport.getContainerSize().x;
    this.viewer.viewport.zoomTo(zoom, null, immediately);
    this.viewer.viewport.panTo(new OpenSeadragon.Point(x / width, y / width), immediately);
  }

  home() {
    this.viewer.viewport.goHome();
  }

  /** Show the same part of the picture as another pane does. */
  follow(leader) {
    this.viewer.viewport.fitBounds(leader.viewer.viewport.getBounds(), true);
  }

  paint(onPaint = this.onPaint) {
    const ratio = window.devicePixelRatio || 1;
    const size = [this.element.clientWidth * ratio, this.element.clientHeight * ratio].map(Math.round);
    if (this.canvas.width !== size[0] || this.canvas.height !== size[1]) [this.canvas.width, this.canvas.height] = size;
    const context = this.canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, size[0], size[1]);
    onPaint(this, context);
  }

  close() {
    this.viewer.destroy();
    this.element.remove();
  }
}
