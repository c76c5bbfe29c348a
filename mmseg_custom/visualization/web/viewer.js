// Shows a labelled image: paint of any opacity, the class under the pointer, a class alone.
// Gradio gives `element` (the root of viewer.html), `props` and `watch`. What comes is in view.py.
const find = selector => element.querySelector(selector);
let shown = null;  // {width, height, classes, labels: class of each pixel}

function decode(text) {
  const view = JSON.parse(text);
  view.labels = new Uint16Array(view.width * view.height);
  let at = 0;
  for (let i = 0; i < view.runs.length; i += 2) {
    view.labels.fill(view.runs[i], at, at += view.runs[i + 1]);
  }
  return view;
}

function swatch(colour) {
  const square = document.createElement('i');
  square.style.background = `rgb(${colour})`;
  return square;
}

// Paints all classes, or one alone.
function paint(only) {
  const canvas = find('canvas'), {width, height, labels, classes} = shown;
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext('2d'), image = context.createImageData(width, height);
  const words = new Uint32Array(image.data.buffer), colours = {};
  for (const [number, {colour: [r, g, b]}] of Object.entries(classes)) {
    const visible = only === undefined || only === Number(number);
    colours[number] = visible ? (255 << 24 | b << 16 | g << 8 | r) >>> 0 : 0;
  }
  for (let i = 0; i < labels.length; i++) words[i] = colours[labels[i]];
  context.putImageData(image, 0, 0);
}

function legend() {
  const bySize = Object.entries(shown.classes).sort(([, a], [, b]) => b.share - a.share);
  find('.legend').replaceChildren(...bySize.map(([number, {name, colour, share}]) => {
    const item = document.createElement('li'), button = document.createElement('button');
    const part = document.createElement('small');
    part.textContent = `${(100 * share).toFixed(1)} %`;
    button.type = 'button';
    button.dataset.number = number;
    button.append(swatch(colour), name, part);
    for (const event of ['mouseenter', 'focus']) {
      button.addEventListener(event, () => paint(Number(number)));
    }
    for (const event of ['mouseleave', 'blur']) button.addEventListener(event, () => paint());
    item.append(button);
    return item;
  }));
}

// All classes and their colours, before an image was given.
function known() {
  find('.legend').replaceChildren(...(props.known ?? []).map(({name, colour}) => {
    const item = document.createElement('li');
    item.append(swatch(colour), name);
    return item;
  }));
}

function point(event) {
  const box = find('canvas').getBoundingClientRect();
  const x = Math.floor((event.clientX - box.left) / box.width * shown.width);
  const y = Math.floor((event.clientY - box.top) / box.height * shown.height);
  const inside = x >= 0 && y >= 0 && x < shown.width && y < shown.height;
  const number = inside ? shown.labels[y * shown.width + x] : undefined;
  const tip = find('.tip'), known = shown.classes[number];
  tip.hidden = !known;
  if (known) {
    tip.replaceChildren(swatch(known.colour), known.name);
    const left = event.clientX - box.left, over = left + tip.offsetWidth + 20 > box.width;
    tip.style.left = `${over ? left - tip.offsetWidth - 24 : left}px`;
    tip.style.top = `${event.clientY - box.top}px`;
  }
  find('output').textContent = known ? known.name : '';
  for (const button of element.querySelectorAll('.legend button')) {
    button.classList.toggle('pointed', Number(button.dataset.number) === number);
  }
}

function show() {
  shown = props.value ? decode(props.value) : null;
  find('.stage').hidden = find('.tools').hidden = !shown;
  find('.empty').hidden = Boolean(shown);
  find('.empty').style.display = shown ? 'none' : '';
  const legendList = find('.legend');
  legendList.classList.toggle('known', !shown);
  if (shown) legendList.removeAttribute('tabindex');
  else legendList.tabIndex = 0;  // it scrolls, also by keys
  legendList.ariaLabel = shown ? 'Classes in the image; point at one to see it alone' : 'Classes';
  if (!shown) return known();
  find('img').src = shown.photo;
  find('.stage').style.width = `min(100%, ${72 * shown.width / shown.height}vh)`;
  paint();
  legend();
  opacity();
}

function opacity() {
  find('canvas').style.opacity = find('.opacity').value / 100;
}

find('.opacity').addEventListener('input', opacity);
find('canvas').addEventListener('pointermove', point);
find('canvas').addEventListener('pointerleave', point);
watch('value', show);
show();
